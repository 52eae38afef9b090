"""Wraps every gRPC call: reads its bytes safely, checks its key, maps its errors, has it logged and counted."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any, NoReturn

import grpc

from polarvec_server.edge.accounting import Accounting, OpenCall
from polarvec_server.edge.auth import Authenticator
from polarvec_server.edge.health import SERVICE_NAME
from polarvec_server.errors import MalformedMessage, RequestError, to_status

_MALFORMED = object()
# How a call ends without an answer: an error of ours, or its caller's going away.
_ENDS = (Exception, asyncio.CancelledError, GeneratorExit)


class CallInterceptor(grpc.aio.ServerInterceptor):
    """One table of errors, one log line and one set of metrics for every call of the services it is told of."""

    def __init__(self, accounting: Accounting, authenticator: Authenticator, packages: Sequence[str]) -> None:
        """Keeps what it works with.

        Args:
            accounting: Where calls are logged and counted.
            authenticator: Who knows the keys.
            packages: Proto packages of ours; calls of other services (health, reflection) pass untouched.
        """
        self._accounting, self._authenticator = accounting, authenticator
        self._prefixes = tuple(f"/{package}." for package in packages)
        self._handlers: dict[str, Any] = {}

    async def intercept_service(  # type: ignore[override]
        self, continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]], details: grpc.HandlerCallDetails
    ) -> Any:
        """Returns the handler of the method with this interceptor around it."""
        # One for each method that there is; made anew for every call it would cost as much as reading the message.
        known = self._handlers.get(details.method)
        if known is not None:
            return known
        handler: Any = await continuation(details)
        if handler is None or not details.method.startswith(self._prefixes):
            return handler
        self._handlers[details.method] = self._framed(handler, details.method)
        return self._handlers[details.method]

    def _framed(self, handler: Any, path: str) -> Any:
        method = path.removeprefix("/").removeprefix(f"{SERVICE_NAME}/")
        codecs = _safe(handler.request_deserializer), handler.response_serializer
        if handler.request_streaming and handler.response_streaming:
            return grpc.stream_stream_rpc_method_handler(self._many(handler.stream_stream, method, _readable), *codecs)
        if handler.request_streaming:
            return grpc.stream_unary_rpc_method_handler(self._one(handler.stream_unary, method, _readable), *codecs)
        if handler.response_streaming:
            return grpc.unary_stream_rpc_method_handler(self._many(handler.unary_stream, method, _message), *codecs)
        return grpc.unary_unary_rpc_method_handler(self._one(handler.unary_unary, method, _message), *codecs)

    def _one(self, behavior: Any, method: str, read: Callable[[Any], Any]) -> Any:
        async def call(request: Any, context: Any) -> Any:
            metadata = _read_metadata(context)
            with self._accounting.open(method, metadata) as opened:
                try:
                    opened.record.key = self._authenticator.check(metadata.get("authorization"))
                    response = await behavior(read(request), context)
                except _ENDS as error:
                    await _fail(context, opened, error)
                _succeed(context, opened)
                return response

        return call

    def _many(self, behavior: Any, method: str, read: Callable[[Any], Any]) -> Any:
        async def call(request: Any, context: Any) -> AsyncIterator[Any]:
            metadata = _read_metadata(context)
            with self._accounting.open(method, metadata) as opened:
                try:
                    opened.record.key = self._authenticator.check(metadata.get("authorization"))
                    async for response in behavior(read(request), context):
                        yield response
                except _ENDS as error:
                    await _fail(context, opened, error)
                _succeed(context, opened)

        return call


def _read_metadata(context: Any) -> dict[str, str]:
    """Returns what is text; keys that end in -bin bring bytes."""
    return {key: value for key, value in context.invocation_metadata() or () if isinstance(value, str)}


def _succeed(context: Any, opened: OpenCall) -> None:
    opened.succeeded()
    context.set_trailing_metadata((("x-request-id", opened.record.request_id), *opened.timings()))


async def _fail(context: Any, opened: OpenCall, error: BaseException) -> NoReturn:
    """Ends a call that was not answered, and raises: what its caller is told, or the error that its going away is."""
    if not isinstance(error, Exception):
        opened.cancelled()
        raise error
    await _abort(context, opened, opened.failed(error))
    raise error


async def _abort(context: Any, call: OpenCall, error: RequestError) -> None:
    trailers = [("x-request-id", call.record.request_id)]
    trailers.append(("grpc-status-details-bin", to_status(error).SerializeToString()))  # type: ignore[arg-type]
    if error.retry_after_s is not None:
        trailers.append(("grpc-retry-pushback-ms", str(int(error.retry_after_s * 1e3))))
    await context.abort(error.code, error.message, tuple(trailers))


def _message(request: Any) -> Any:
    if request is _MALFORMED:
        raise MalformedMessage
    return request


async def _readable(requests: AsyncIterator[Any]) -> AsyncIterator[Any]:
    async for request in requests:
        yield _message(request)


def _safe(deserialize: Callable[[bytes], Any] | None) -> Callable[[bytes], Any]:
    """Marks bytes that are no message; plain grpc.aio would answer UNKNOWN with the exception's text."""

    def read(data: bytes) -> Any:
        try:
            return deserialize(data) if deserialize else data
        except Exception:
            return _MALFORMED

    return read
