"""The asyncio side of the wire: one lazy channel, calls with deadlines, several in flight, bulk jobs."""

from __future__ import annotations

import asyncio
import itertools
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Iterable, Sequence
from typing import Final, TypeVar

import grpc
import grpc.aio
from polarvec_proto.v1 import embedding_pb2 as pb

from polarvec._async_stream import AsyncStreamCall
from polarvec._batching import Batch
from polarvec._channel import EMBED, ChannelSettings, Rpc
from polarvec._errors import PolarvecError, from_rpc_error
from polarvec._requests import embed_request
from polarvec._results import EmbedPart, call_timings
from polarvec._retry import Deadline, call_delay_s
from polarvec._stream import StreamLedger
from polarvec._types import CallTimings, StreamItem

RequestT = TypeVar("RequestT")
ResponseT = TypeVar("ResponseT")


class AsyncCalls:
    """The calls of one client; bound to the event loop of its first call."""

    def __init__(self, settings: ChannelSettings, *, max_in_flight: int) -> None:
        """Opens nothing yet."""
        self._settings: Final = settings
        self._max_in_flight: Final = max_in_flight
        self._loop: asyncio.AbstractEventLoop | None = None
        self._channel: grpc.aio.Channel | None = None
        self._closed = False

    async def close(self) -> None:
        """Ends the connection; calls under way end with an error."""
        self._closed = True
        channel, self._channel = self._channel, None
        if channel is not None:
            await channel.close()

    async def unary(self, rpc: Rpc[RequestT, ResponseT], request: RequestT, timeout_s: float) -> ResponseT:
        """One call, sent again after the server's delay where the server is overloaded.

        Raises:
            PolarvecError: It failed.
        """
        response, _ = await self._finish(rpc, request, Deadline.after(timeout_s))
        return response

    async def embed(
        self, batches: Sequence[Batch], template: pb.EmbedRequest, timeout_s: float
    ) -> AsyncIterator[EmbedPart]:
        """The batches' answers in order, with a bounded number of calls in flight.

        Raises:
            PolarvecError: A batch failed; the calls still in flight are cancelled.
        """
        window: deque[asyncio.Task[list[EmbedPart]]] = deque()
        try:
            for batch in batches:
                if len(window) >= self._max_in_flight:
                    for part in await window.popleft():
                        yield part
                window.append(asyncio.create_task(self._embed_batch(batch, template, timeout_s)))
            while window:
                for part in await window.popleft():
                    yield part
        finally:
            for task in window:
                task.cancel()
            await asyncio.gather(*window, return_exceptions=True)

    async def stream(
        self, texts: Iterable[str] | AsyncIterable[str], ledger: StreamLedger, timeout_s: float
    ) -> AsyncGenerator[StreamItem, None]:
        """Runs a bulk job: reads the input only while the ledger has room.

        Raises:
            PolarvecError: The job failed as a whole.
        """
        source = aiter(texts) if isinstance(texts, AsyncIterable) else _aiter(texts)
        call = AsyncStreamCall(self._open_channel(), self._settings)
        try:
            while not ledger.done:
                if ledger.has_room:
                    await _read_batch(source, ledger)
                for request in ledger.outgoing():
                    call.send(request)
                wait_s = ledger.wait_s(timeout_s)
                try:
                    answer = await call.receive(wait_s)
                except PolarvecError as error:
                    delay_s = ledger.call_failed(error, timeout_s)
                    await call.cancel()
                    await asyncio.sleep(delay_s)
                    call = AsyncStreamCall(self._open_channel(), self._settings)
                    continue
                if answer is None:
                    ledger.waited(wait_s, timeout_s)
                else:
                    ledger.settle(answer)
                for item in ledger.ready():
                    yield item
            await call.finish()
        finally:
            await call.cancel()

    async def _embed_batch(self, batch: Batch, template: pb.EmbedRequest, timeout_s: float) -> list[EmbedPart]:
        request = embed_request(template, batch.texts)
        try:
            response, timings = await self._finish(EMBED, request, Deadline.after(timeout_s))
        except PolarvecError as error:
            if not batch.can_halve_after(error):
                raise batch.in_callers_terms(error) from error.__cause__
        else:
            return [EmbedPart(batch, response, timings)]
        parts: list[EmbedPart] = []
        for half in batch.halves():
            parts += await self._embed_batch(half, template, timeout_s)
        return parts

    async def _finish(
        self, rpc: Rpc[RequestT, ResponseT], request: RequestT, deadline: Deadline
    ) -> tuple[ResponseT, CallTimings]:
        for attempt in itertools.count(1):
            method = self._open_channel().unary_unary(rpc.path, rpc.serialize, rpc.parse)
            call = method(request, timeout=deadline.remaining_s(), metadata=self._settings.metadata)
            try:
                return await call, call_timings(await call.trailing_metadata())
            except grpc.RpcError as error:
                failure = from_rpc_error(error)
            except asyncio.CancelledError:
                task = asyncio.current_task()
                if self._closed and task is not None and not task.cancelling():
                    raise RuntimeError("this client was closed during the call") from None
                raise
            delay_s = call_delay_s(failure, attempt, deadline)
            if delay_s is None:
                raise failure
            await asyncio.sleep(delay_s)
        raise AssertionError("count() does not end")

    def _open_channel(self) -> grpc.aio.Channel:
        if self._closed:
            raise RuntimeError("this client is closed; make a new one")
        loop = asyncio.get_running_loop()
        if self._channel is None:
            target, credentials, options = self._settings.target, self._settings.credentials, self._settings.options
            self._channel = (
                grpc.aio.insecure_channel(target, options=options)
                if credentials is None
                else grpc.aio.secure_channel(target, credentials, options=options)
            )
            self._loop = loop
        if self._loop is not loop:
            raise RuntimeError("this client belongs to another event loop; make one client for each loop")
        return self._channel


async def _aiter(texts: Iterable[str]) -> AsyncIterator[str]:
    for text in texts:
        yield text


async def _read_batch(source: AsyncIterator[str], ledger: StreamLedger) -> None:
    async for text in source:
        if ledger.add(text) or not ledger.has_room:
            return
    ledger.end_input()
