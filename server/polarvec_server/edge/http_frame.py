"""Wraps every HTTP call as `interceptors` does every gRPC call: id, key, size, deadline, errors, log line, metrics."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import grpc
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from polarvec_server.edge.accounting import Accounting, OpenCall
from polarvec_server.edge.auth import Authenticator
from polarvec_server.edge.http_call import HttpCall
from polarvec_server.edge.record import CallRecord
from polarvec_server.errors import DeadlineExceeded, EncoderUnavailable, RequestError

_STATUSES = {
    grpc.StatusCode.INVALID_ARGUMENT: 400,
    grpc.StatusCode.UNAUTHENTICATED: 401,
    grpc.StatusCode.PERMISSION_DENIED: 403,
    grpc.StatusCode.NOT_FOUND: 404,
    grpc.StatusCode.OUT_OF_RANGE: 413,
    grpc.StatusCode.RESOURCE_EXHAUSTED: 429,
    grpc.StatusCode.INTERNAL: 500,
    grpc.StatusCode.UNAVAILABLE: 503,
    grpc.StatusCode.DEADLINE_EXCEEDED: 504,
}
# What nginx writes in its log for a caller that did not wait; nobody reads it.
_CALLER_GONE = 499
# The caller's own limit in whole or broken seconds, which the openai packages send with every call.
_OPENAI_TIMEOUT = "x-stainless-read-timeout"
# A body over the limit is read on to its end as long as it is not absurd: most clients read no answer before.
_DISCARDED_TIMES = 4


class BodyTooLarge(RequestError):
    """The body has more bytes than a request may have."""

    # Of no gRPC call, where the transport itself refuses; it stands for 413 in logs and metrics.
    code = grpc.StatusCode.OUT_OF_RANGE
    reason = "REQUEST_TOO_LARGE"

    def __init__(self, limit: int) -> None:
        super().__init__(f"The body has more than {limit} bytes; split the call into several.")


class _CallerGone(Exception):
    """Nobody waits for the answer any more."""


@dataclass(frozen=True, slots=True)
class HttpLimits:
    """What one HTTP call gets."""

    default_deadline_s: float
    max_deadline_s: float
    max_request_bytes: int
    max_json_values: int


Handler = Callable[[HttpCall], Awaitable[Response]]
ErrorRenderer = Callable[[RequestError], dict[str, Any]]


class HttpFrame:
    """What every path of the HTTP door goes through."""

    def __init__(self, accounting: Accounting, authenticator: Authenticator, limits: HttpLimits) -> None:
        self._accounting, self._authenticator, self._limits = accounting, authenticator, limits

    def route(self, path: str, handle: Handler, *, method: str, render_error: ErrorRenderer) -> Route:
        """Returns the route of a path.

        Args:
            path: As starlette writes it; also its name in logs and metrics.
            handle: Answers a call, or raises a RequestError. It is cancelled when the caller goes away or the
                deadline passes.
            method: GET or POST.
            render_error: Makes the JSON body of a refusal.
        """
        label = f"{method} {path}"

        async def endpoint(request: Request) -> Response:
            with self._accounting.open(label, request.headers) as call:
                return await self._answer(request, call, handle, render_error)

        return Route(path, endpoint, methods=[method])

    async def _answer(self, request: Request, call: OpenCall, handle: Handler, render_error: ErrorRenderer) -> Response:
        try:
            call.record.key = self._authenticator.check(request.headers.get("authorization"))
            response = await self._run(request, call.record, handle)
        except asyncio.CancelledError:
            # The server stops, and has waited as long as it may.
            call.cancelled()
            response = refusal(EncoderUnavailable(), render_error)
        except (_CallerGone, ClientDisconnect):
            call.cancelled()
            response = Response(status_code=_CALLER_GONE)
        except Exception as error:
            response = refusal(call.failed(error), render_error)
        else:
            call.succeeded()
            response.headers.update(dict(call.timings()))
        response.headers["x-request-id"] = call.record.request_id
        return response

    async def _run(self, request: Request, record: CallRecord, handle: Handler) -> Response:
        allowed_s = self._allowed_s(request)
        deadline = time.monotonic() + allowed_s
        try:
            async with asyncio.timeout(allowed_s):
                body = await self._read(request) if request.method == "POST" else b""
                call = HttpCall(request, body, deadline, record, self._limits.max_json_values)
                return await _unless_gone(request, handle(call))
        except TimeoutError:
            raise DeadlineExceeded from None

    def _allowed_s(self, request: Request) -> float:
        """Reads the caller's deadline; one that is no number counts as none."""
        for name, per_second in (("x-request-timeout-ms", 1e3), (_OPENAI_TIMEOUT, 1.0)):
            try:
                asked_s = float(request.headers.get(name, "")) / per_second
            except ValueError:
                continue
            if math.isfinite(asked_s):
                return min(max(asked_s, 0.0), self._limits.max_deadline_s)
        return min(self._limits.default_deadline_s, self._limits.max_deadline_s)

    async def _read(self, request: Request) -> bytes:
        limit = self._limits.max_request_bytes
        length = request.headers.get("content-length", "0")
        if not length.isdecimal() or int(length) > _DISCARDED_TIMES * limit:
            raise BodyTooLarge(limit)
        chunks, byte_count = [], 0
        async for chunk in request.stream():
            byte_count += len(chunk)
            if byte_count <= limit:
                chunks.append(chunk)
            elif byte_count > _DISCARDED_TIMES * limit:
                break
            else:
                chunks.clear()
        if byte_count > limit:
            raise BodyTooLarge(limit)
        return b"".join(chunks)


def refusal(error: RequestError, render_error: ErrorRenderer) -> JSONResponse:
    """Returns the answer of a refused call, with the headers that tell clients whether and when to try again."""
    status = _STATUSES[error.code]
    # The openai packages would repeat every 5xx and 429; embedding anew helps only where there is a delay to wait.
    headers = {"x-should-retry": str(error.retry_after_s is not None).lower()}
    if error.retry_after_s is not None:
        headers["retry-after"] = str(max(1, math.ceil(error.retry_after_s)))
        headers["retry-after-ms"] = str(math.ceil(error.retry_after_s * 1e3))
    if status == 401:
        headers["www-authenticate"] = "Bearer"
    return JSONResponse(render_error(error), status, headers)


async def _unless_gone(request: Request, work: Awaitable[Response]) -> Response:
    """Awaits an answer, and gives it up when its caller goes away."""
    answer, gone = asyncio.ensure_future(work), asyncio.ensure_future(_disconnected(request))
    try:
        await asyncio.wait({answer, gone}, return_when=asyncio.FIRST_COMPLETED)
        if answer.done():
            return answer.result()
        raise _CallerGone
    finally:
        for task in (answer, gone):
            if not task.done():
                task.cancel()
        await asyncio.gather(answer, gone, return_exceptions=True)


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
