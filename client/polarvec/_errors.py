"""What the client raises: its own errors only, made from gRPC's in this one place.

PolarvecError
├── InvalidRequest      the request must change: a text, an option, the target
├── NotFound            there is no such model
├── Unauthenticated     the API key is missing or unknown
├── PermissionDenied    the API key may not do this
├── Overloaded          the server has no room or the quota is used up: retry_after_s
├── Unavailable         the server cannot be reached, or its encoder is not ready
├── DeadlineExceeded    timeout_s passed first
└── ServerError         a fault of the server

What is wrong with the calling program and not with the request is a TypeError (an argument of the wrong type, an
unknown option) or a RuntimeError (a closed client, another event loop).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any

import grpc
from google.protobuf.message import DecodeError
from google.rpc import code_pb2, error_details_pb2, status_pb2  # type: ignore[import-untyped]  # ships no py.typed

# The reason that the client itself gives, beside those of the API: gRPC calls a wrong certificate UNAVAILABLE too.
TLS_FAILED = "TLS_FAILED"

_TLS_FAILURES = ("CERTIFICATE_VERIFY_FAILED", "Custom verification check failed", "WRONG_VERSION_NUMBER")
_DETAILS_KEY = "grpc-status-details-bin"
_REQUEST_ID_KEY = "x-request-id"
_INDEXED_FIELD = re.compile(r"^texts\[(\d+)\]$")


class PolarvecError(Exception):
    """The base of everything that this package raises about a request."""

    def __init__(
        self,
        message: str,
        *,
        reason: str = "",
        metadata: Mapping[str, str] | None = None,
        field: str = "",
        request_id: str = "",
        retry_after_s: float | None = None,
    ) -> None:
        """Keeps what the server said.

        Args:
            message: A sentence that says what to do.
            reason: A name of the API's ErrorReason, such as TEXT_TOO_LONG; empty if the server named none. TLS_FAILED
                is the client's own: the two sides do not trust each other.
            metadata: The reason's numbers and names, as the API documents them.
            field: The part of the request that is wrong, such as texts[3].
            request_id: The server's id of the call, for its logs.
            retry_after_s: Seconds after which trying again makes sense, if the server said so.
        """
        super().__init__(message)
        self.message = message
        self.reason = reason
        # A dict, so that an error can be pickled: Ray, Spark and multiprocessing carry it from worker to caller.
        self.metadata: Mapping[str, str] = dict(metadata or {})
        self.field = field
        self.request_id = request_id
        self.retry_after_s = retry_after_s

    @property
    def text_index(self) -> int | None:
        """The index of the text that is wrong, if it is one text."""
        match = _INDEXED_FIELD.match(self.field)
        return int(match.group(1)) if match else None

    def with_text_index(self, index: int) -> PolarvecError:
        """The same error about another index: a part of a call counts from 0, its caller does not."""
        if self.text_index is None:
            return self
        old, new = self.field, f"texts[{index}]"
        metadata = dict(self.metadata) | ({"index": str(index)} if "index" in self.metadata else {})
        error = type(self)(
            self.message.replace(old, new),
            reason=self.reason,
            metadata=metadata,
            field=new,
            request_id=self.request_id,
            retry_after_s=self.retry_after_s,
        )
        error.__cause__ = self.__cause__
        return error


class InvalidRequest(PolarvecError):
    """The request must change: a text, an option or the target is wrong."""


class NotFound(PolarvecError):
    """There is no such model."""


class Unauthenticated(PolarvecError):
    """The API key is missing or unknown."""


class PermissionDenied(PolarvecError):
    """The API key may not do this."""


class Overloaded(PolarvecError):
    """The server has no room, or the key's quota is used up; `retry_after_s` says when to come back."""


class Unavailable(PolarvecError):
    """The server cannot be reached, or its encoder is not ready."""


class DeadlineExceeded(PolarvecError):
    """The time for the call passed first."""


class ServerError(PolarvecError):
    """A fault of the server."""


_CLASSES: Mapping[int, type[PolarvecError]] = MappingProxyType(
    {
        code_pb2.INVALID_ARGUMENT: InvalidRequest,
        code_pb2.OUT_OF_RANGE: InvalidRequest,
        code_pb2.NOT_FOUND: NotFound,
        code_pb2.UNAUTHENTICATED: Unauthenticated,
        code_pb2.PERMISSION_DENIED: PermissionDenied,
        code_pb2.RESOURCE_EXHAUSTED: Overloaded,
        code_pb2.UNAVAILABLE: Unavailable,
        # The client's own cancelling never comes here: a server or a proxy that goes away says so.
        code_pb2.CANCELLED: Unavailable,
        code_pb2.DEADLINE_EXCEEDED: DeadlineExceeded,
    }
)


def from_rpc_error(error: grpc.RpcError) -> PolarvecError:
    """The error of this package for a failed gRPC call, with `error` as its cause.

    Args:
        error: What grpc or grpc.aio raised.
    """
    code, text = error.code(), error.details() or ""
    trailers = dict(_pairs(error.trailing_metadata()))
    status = _status(trailers.get(_DETAILS_KEY)) or status_pb2.Status()
    status.code = code.value[0] if code else code_pb2.UNKNOWN
    status.message = status.message or _explained(code, text)
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED and not status.details and "larger than max" in text:
        # The transport's own refusal of a message that is too big; waiting does not make it smaller.
        status.code = code_pb2.INVALID_ARGUMENT
        status.message = f"The message is too big for one call; send fewer or shorter texts ({text})."
    result = from_status(status, request_id=str(trailers.get(_REQUEST_ID_KEY, "")))
    if not result.reason and _is_tls_failure(code, text):
        result.reason = TLS_FAILED
    result.__cause__ = error
    return result


def from_status(status: status_pb2.Status, *, request_id: str = "") -> PolarvecError:
    """The error of this package for a google.rpc.Status with the API's details."""
    info, bad, retry = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest(), error_details_pb2.RetryInfo()
    retry_after_s: float | None = None
    for detail in status.details:
        try:
            detail.Unpack(info)
            detail.Unpack(bad)
            if detail.Unpack(retry):
                retry_after_s = retry.retry_delay.ToTimedelta().total_seconds()
        except DecodeError:  # A detail that cannot be read costs its content, not the error itself.
            continue
    return _CLASSES.get(status.code, ServerError)(
        status.message or f"The server gave code {status.code} without a message; report this.",
        reason=info.reason,
        metadata=info.metadata,
        field=bad.field_violations[0].field if bad.field_violations else "",
        request_id=request_id,
        retry_after_s=retry_after_s,
    )


def _pairs(metadata: Iterable[Any] | None) -> Iterable[tuple[str, str | bytes]]:
    return ((key, value) for key, value in metadata or ())


def _status(serialized: str | bytes | None) -> status_pb2.Status | None:
    if not isinstance(serialized, bytes):
        return None
    try:
        return status_pb2.Status.FromString(serialized)
    except DecodeError:
        return None


def _is_tls_failure(code: grpc.StatusCode | None, text: str) -> bool:
    """Whether gRPC could not connect because this side does not trust the other: trying again does not help."""
    return code is grpc.StatusCode.UNAVAILABLE and any(sign in text for sign in _TLS_FAILURES)


def _explained(code: grpc.StatusCode | None, text: str) -> str:
    """A sentence for the errors that gRPC itself makes, whose texts do not say what to do."""
    match code:
        case grpc.StatusCode.UNAVAILABLE if _is_tls_failure(code, text):
            return f"TLS failed; check that the server speaks it, and the ca and server_name of tls ({text})."
        case grpc.StatusCode.UNAVAILABLE if "Socket closed" in text:
            return (
                "The server closed the connection; check that it runs, and if it speaks TLS, that tls is given, with a "
                f"client certificate that it accepts ({text})."
            )
        case grpc.StatusCode.UNAVAILABLE:
            return f"The server cannot be reached; check the target and that the server runs ({text})."
        case grpc.StatusCode.CANCELLED:
            return f"The server broke the call off; try again ({text})."
        case grpc.StatusCode.DEADLINE_EXCEEDED:
            return "No answer came within timeout_s; raise it or send fewer texts."
        case grpc.StatusCode.UNIMPLEMENTED:
            return f"The server does not know this call; check that the target is a Polarvec server ({text})."
        case grpc.StatusCode.NOT_FOUND if not text:
            return "The server does not know this name; models() lists the models that it has."
        case _:
            return text or f"The server answered {code.name if code else 'nothing'} without a message; report this."
