"""Wraps every call: reads its bytes safely, gives it an id, maps its errors, logs and counts it."""

from __future__ import annotations

import asyncio
import contextlib
import re
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
import structlog

from polarvec_server.edge.record import CallRecord, current_record
from polarvec_server.errors import InternalError, MalformedMessage, RequestError, to_status
from polarvec_server.telemetry import Metrics

_log = structlog.get_logger("polarvec.calls")
_REQUEST_ID = re.compile(r"[A-Za-z0-9_.:-]{1,64}")
_MALFORMED = object()


class CallInterceptor(grpc.aio.ServerInterceptor):
    """One table of errors, one log line and one set of metrics for every call of the services it is told of."""

    def __init__(self, metrics: Metrics, service_prefix: str) -> None:
        """Keeps what it works with.

        Args:
            metrics: Where calls are counted.
            service_prefix: Calls of other services (health, reflection) pass untouched.
        """
        self._metrics, self._prefix = metrics, service_prefix
        self.calls_in_progress = 0

    async def intercept_service(  # type: ignore[override]
        self, continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]], details: grpc.HandlerCallDetails
    ) -> Any:
        """Returns the handler of the method with this interceptor around it."""
        handler: Any = await continuation(details)
        if handler is None or not details.method.startswith(self._prefix):
            return handler
        method = details.method.rsplit("/", 1)[-1]
        deserializer = _safe(handler.request_deserializer)
        if handler.request_streaming:
            return grpc.stream_stream_rpc_method_handler(
                self._stream(handler.stream_stream, method), deserializer, handler.response_serializer
            )
        return grpc.unary_unary_rpc_method_handler(
            self._unary(handler.unary_unary, method), deserializer, handler.response_serializer
        )

    def _unary(self, behavior: Any, method: str) -> Any:
        async def call(request: Any, context: Any) -> Any:
            async with self._frame(method, context):
                if request is _MALFORMED:
                    raise MalformedMessage
                return await behavior(request, context)

        return call

    def _stream(self, behavior: Any, method: str) -> Any:
        async def readable(requests: AsyncIterator[Any]) -> AsyncIterator[Any]:
            async for request in requests:
                if request is _MALFORMED:
                    raise MalformedMessage
                yield request

        async def call(requests: AsyncIterator[Any], context: Any) -> AsyncIterator[Any]:
            async with self._frame(method, context):
                async for response in behavior(readable(requests), context):
                    yield response

        return call

    @contextlib.asynccontextmanager
    async def _frame(self, method: str, context: Any) -> AsyncIterator[None]:
        self.calls_in_progress += 1
        try:
            async with _Call(self._metrics, method, context):
                yield
        finally:
            self.calls_in_progress -= 1


def _safe(deserialize: Callable[[bytes], Any] | None) -> Callable[[bytes], Any]:
    """Marks bytes that are no message; plain grpc.aio would answer UNKNOWN with the exception's text."""

    def read(data: bytes) -> Any:
        try:
            return deserialize(data) if deserialize else data
        except Exception:
            return _MALFORMED

    return read


class _Call:
    """The frame around one call."""

    def __init__(self, metrics: Metrics, method: str, context: Any) -> None:
        self._metrics, self._method, self._context = metrics, method, context
        metadata = dict(context.invocation_metadata() or ())
        given = str(metadata.get("x-request-id", ""))
        self._record = CallRecord(given if _REQUEST_ID.fullmatch(given) else uuid.uuid4().hex[:16])

    async def __aenter__(self) -> None:
        self._started = time.monotonic()
        self._token = current_record.set(self._record)

    async def __aexit__(self, _: type[BaseException] | None, error: BaseException | None, __: object) -> bool:
        if error is None:
            self._finish("OK")
            self._context.set_trailing_metadata(self._trailers())
            return False
        if isinstance(error, asyncio.CancelledError | GeneratorExit):
            self._finish("CANCELLED")
            return False
        if not isinstance(error, RequestError):
            _log.error("a call failed", method=self._method, request_id=self._record.request_id, exc_info=error)
            error = InternalError()
        self._finish(error.code.name, error.reason)
        trailers = [("x-request-id", self._record.request_id)]
        trailers.append(("grpc-status-details-bin", to_status(error).SerializeToString()))  # type: ignore[arg-type]
        if error.retry_after_s is not None:
            trailers.append(("grpc-retry-pushback-ms", str(int(error.retry_after_s * 1e3))))
        await self._context.abort(error.code, error.message, tuple(trailers))
        return False

    def _trailers(self) -> tuple[tuple[str, str], ...]:
        trailers = [("x-request-id", self._record.request_id)]
        if self._record.timed:
            timings = self._record.timings
            trailers += [
                ("x-queue-ms", f"{timings.queue_ms:.3f}"),
                ("x-tokenize-ms", f"{timings.tokenize_ms:.3f}"),
                ("x-inference-ms", f"{timings.inference_ms:.3f}"),
            ]
        return tuple(trailers)

    def _finish(self, code: str, reason: str = "") -> None:
        seconds = time.monotonic() - self._started
        record, metrics = self._record, self._metrics
        metrics.requests.labels(self._method, code).inc()
        metrics.request_seconds.labels(self._method).observe(seconds)
        if record.timed and code == "OK":
            metrics.stage_seconds.labels("tokenize").observe(record.timings.tokenize_ms / 1e3)
            metrics.stage_seconds.labels("queue").observe(record.timings.queue_ms / 1e3)
            metrics.stage_seconds.labels("inference").observe(record.timings.inference_ms / 1e3)
        if record.text_count and self._method != "Tokenize":
            metrics.texts.labels(record.model).inc(record.text_count)
            metrics.tokens.labels(record.model).inc(record.token_count)
            metrics.truncated.labels(record.model).inc(record.truncated_count)
        write = _log.debug if code == "OK" else _log.info
        write(
            "call",
            method=self._method,
            code=code,
            reason=reason,
            request_id=record.request_id,
            model=record.model,
            texts=record.text_count,
            tokens=record.token_count,
            ms=round(seconds * 1e3, 2),
        )
