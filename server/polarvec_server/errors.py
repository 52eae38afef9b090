"""The domain errors of the server, and the one table that says what each becomes on the wire.

Stages raise these; `edge/` turns them into google.rpc.Status with `to_status`. Messages are short, say what to do,
and name no internals.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import ClassVar

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.rpc import error_details_pb2, status_pb2

DOMAIN = "polarvec"


class PolarvecServerError(Exception):
    """Base of every error that this package raises on purpose."""


class ConfigError(PolarvecServerError):
    """The server cannot start as it is set up; the message says what to change."""


class EncoderDied(PolarvecServerError):
    """The encoder went away while a pack was with it; the pack may be sent again."""


class RequestError(PolarvecServerError):
    """Base of the errors that end one call (or one item of a stream) with a status of their own."""

    code: ClassVar[grpc.StatusCode] = grpc.StatusCode.INVALID_ARGUMENT
    reason: ClassVar[str]

    def __init__(
        self,
        message: str,
        *,
        field: str = "",
        metadata: Mapping[str, str | int] | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.field = field
        self.metadata = {key: str(value) for key, value in (metadata or {}).items()}
        self.retry_after_s = retry_after_s


class MalformedMessage(RequestError):
    """The bytes on the wire are not the message that the method takes."""

    reason = "MALFORMED_MESSAGE"

    def __init__(self) -> None:
        super().__init__("The request is not a valid protobuf message of this method's type.")


class NoTexts(RequestError):
    """A list that needs at least one text is empty."""

    reason = "NO_TEXTS"

    def __init__(self, field: str) -> None:
        super().__init__(f"{field} is empty; send at least one text.", field=field)


class TooManyTexts(RequestError):
    """More texts, or more tokens, than a call may hold."""

    reason = "TOO_MANY_TEXTS"

    def __init__(self, unit: str, count: int, limit: int, field: str = "texts") -> None:
        message = f"The call holds {count} {unit}s, the limit is {limit}; split it into several calls."
        super().__init__(message, field=field, metadata={f"{unit}_count": count, f"{unit}_limit": limit})


class EmptyText(RequestError):
    """A text without any content; `index` is None where the field is no list."""

    reason = "EMPTY_TEXT"

    def __init__(self, field: str, index: int | None) -> None:
        path, metadata = _locate(field, index)
        super().__init__(f"{path} is empty or only white space.", field=path, metadata=metadata)


class TextTooLong(RequestError):
    """A text that is longer than the model reads (tokens), or than any text may be (bytes).

    `index` is None where the field is no list.
    """

    reason = "TEXT_TOO_LONG"

    def __init__(self, field: str, index: int | None, unit: str, count: int, limit: int) -> None:
        hint = "shorten it or ask for truncation" if unit == "token" else "shorten it"
        path, metadata = _locate(field, index)
        super().__init__(
            f"{path} has {count} {unit}s, the limit is {limit}; {hint}.",
            field=path,
            metadata={**metadata, f"{unit}_count": count, f"{unit}_limit": limit},
        )


class UnknownInputType(RequestError):
    """The input type is missing or a number that this server does not know."""

    reason = "UNKNOWN_INPUT_TYPE"

    def __init__(self, value: int) -> None:
        message = "input_type must be INPUT_TYPE_QUERY, INPUT_TYPE_DOCUMENT or INPUT_TYPE_RAW."
        super().__init__(message, field="input_type", metadata={"input_type": value})


class UnknownPrompt(RequestError):
    """The model has no prompt of that name."""

    reason = "UNKNOWN_PROMPT"

    def __init__(self, prompts: Sequence[str]) -> None:
        known = ", ".join(sorted(prompts)) or "none"
        super().__init__(
            f"The model has no such prompt; it has: {known}.",
            field="prompt_name",
            metadata={"prompts": ",".join(sorted(prompts))},
        )


class UnsupportedDimensions(RequestError):
    """The model's vectors cannot be cut to that many dimensions."""

    reason = "UNSUPPORTED_DIMENSIONS"

    def __init__(self, dimensions: int, max_dimensions: int, step: int = 8) -> None:
        known = f"from 1 to {max_dimensions}"
        if step > 1:
            known = f"0 (all) or a multiple of {step} from {step} to {max_dimensions}"
        super().__init__(
            f"dimensions must be {known}, not {dimensions}.",
            field="dimensions",
            metadata={"dimensions": dimensions, "max_dimensions": max_dimensions},
        )


class UnsupportedEncoding(RequestError):
    """A number format that this server does not know."""

    reason = "UNSUPPORTED_ENCODING"

    def __init__(self, value: int) -> None:
        super().__init__(
            "encoding must be ENCODING_FLOAT32, _FLOAT16, _INT8 or _BINARY.",
            field="encoding",
            metadata={"encoding": value},
        )


class InvalidText(RequestError):
    """A prompt that cannot be used."""

    reason = "INVALID_TEXT"

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(f"{field} {problem}.", field=field)


class InvalidField(RequestError):
    """Another field holds a value that this server does not know."""

    reason = "INVALID_FIELD"

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(f"{field} {problem}.", field=field, metadata={"field": field})


class UnknownModel(RequestError):
    """No model of that id is served here."""

    code = grpc.StatusCode.NOT_FOUND
    reason = "UNKNOWN_MODEL"

    def __init__(self, models: Sequence[str]) -> None:
        super().__init__(
            f"There is no such model here; there are: {', '.join(models) or 'none'}.",
            metadata={"models": ",".join(models)},
        )


class UnsupportedMethod(RequestError):
    """A method of another server's interface, for a kind of model that is not served here."""

    code = grpc.StatusCode.UNIMPLEMENTED
    reason = "UNSUPPORTED_METHOD"

    def __init__(self) -> None:
        super().__init__("This server embeds text; it has no model of the kind that this method needs.")


class Unauthenticated(RequestError):
    """The API key is missing or unknown."""

    code = grpc.StatusCode.UNAUTHENTICATED
    reason = "UNAUTHENTICATED"

    def __init__(self) -> None:
        super().__init__("Send a known API key: authorization: Bearer KEY.")


class PermissionDenied(RequestError):
    """The API key may not use this model."""

    code = grpc.StatusCode.PERMISSION_DENIED
    reason = "PERMISSION_DENIED"

    def __init__(self) -> None:
        super().__init__("This API key may not use the model.")


class Overloaded(RequestError):
    """The server has as much work as it takes."""

    code = grpc.StatusCode.RESOURCE_EXHAUSTED
    reason = "OVERLOADED"

    def __init__(self, retry_after_s: float) -> None:
        super().__init__(
            "The server is at its limit; try again after the delay that comes with this answer.",
            retry_after_s=retry_after_s,
        )


class QuotaExceeded(RequestError):
    """The key's quota is used up."""

    code = grpc.StatusCode.RESOURCE_EXHAUSTED
    reason = "QUOTA_EXCEEDED"

    def __init__(self, retry_after_s: float) -> None:
        super().__init__(
            "The quota of this key is used up; try again after the delay that comes with this answer.",
            retry_after_s=retry_after_s,
        )


class EncoderUnavailable(RequestError):
    """The encoder is starting, restarting or down."""

    code = grpc.StatusCode.UNAVAILABLE
    reason = "ENCODER_UNAVAILABLE"

    def __init__(self, retry_after_s: float = 1.0) -> None:
        super().__init__("The encoder is not available right now; try again.", retry_after_s=retry_after_s)


class DeadlineExceeded(RequestError):
    """The caller's deadline passed before the vectors were ready."""

    code = grpc.StatusCode.DEADLINE_EXCEEDED
    reason = "DEADLINE_EXCEEDED"

    def __init__(self) -> None:
        super().__init__("The deadline passed before the vectors were ready.")


class NonFinite(RequestError):
    """The encoder produced NaN or infinity; such vectors are never sent out."""

    code = grpc.StatusCode.INTERNAL
    reason = "NON_FINITE"

    def __init__(self) -> None:
        super().__init__("The encoder produced a vector that is not finite.")


class InternalError(RequestError):
    """Anything that has no error of its own; the cause stands in the log only."""

    code = grpc.StatusCode.INTERNAL
    reason = "INTERNAL"

    def __init__(self) -> None:
        super().__init__("The server failed to answer; the operator finds the cause under this call's x-request-id.")


def _locate(field: str, index: int | None) -> tuple[str, dict[str, int]]:
    """Returns the path of a text in the request, and its index as metadata; neither has one where there is no list."""
    return (field, {}) if index is None else (f"{field}[{index}]", {"index": index})


def to_status(error: RequestError) -> status_pb2.Status:
    """Returns the google.rpc.Status of an error, with ErrorInfo and, where they apply, BadRequest and RetryInfo."""
    details: list[any_pb2.Any] = []

    def pack(message: error_details_pb2.ErrorInfo | error_details_pb2.BadRequest | error_details_pb2.RetryInfo) -> None:
        packed = any_pb2.Any()
        packed.Pack(message)
        details.append(packed)

    pack(error_details_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN, metadata=error.metadata))
    if error.field:
        violation = error_details_pb2.BadRequest.FieldViolation(field=error.field, description=error.message)
        pack(error_details_pb2.BadRequest(field_violations=[violation]))
    if error.retry_after_s is not None:
        seconds = math.floor(error.retry_after_s)
        nanos = int((error.retry_after_s - seconds) * 1e9)
        pack(error_details_pb2.RetryInfo(retry_delay=duration_pb2.Duration(seconds=seconds, nanos=nanos)))
    return status_pb2.Status(code=error.code.value[0], message=error.message, details=details)
