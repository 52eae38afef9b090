"""The asyncio side of the wire: one call, a list of texts as several calls, a bulk job."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Iterable, Sequence
from typing import Final, TypeVar

from polarvec_proto.v1 import embedding_pb2 as pb

from polarvec._async_channels import AsyncChannels
from polarvec._async_stream import AsyncStreamCalls
from polarvec._async_unary import AsyncUnary
from polarvec._batching import Batch
from polarvec._channel import EMBED, ChannelSettings, Rpc
from polarvec._context import CallContext
from polarvec._errors import PolarvecError
from polarvec._lanes import Lanes
from polarvec._requests import embed_request
from polarvec._results import EmbedPart
from polarvec._retry import CallPolicy
from polarvec._stream import StreamLedger
from polarvec._types import StreamItem

RequestT = TypeVar("RequestT")
ResponseT = TypeVar("ResponseT")


class AsyncCalls:
    """The calls of one client; bound to the event loop of its first call."""

    def __init__(self, settings: ChannelSettings, *, max_in_flight: int, hedge_after_s: float | None) -> None:
        """Opens nothing yet."""
        self._max_in_flight: Final = max_in_flight
        self._channels: Final = AsyncChannels(settings)
        self._policy: Final = CallPolicy(len(settings.endpoints), hedge_after_s=hedge_after_s)
        self._unary: Final = AsyncUnary(self._channels, self._policy)

    async def close(self) -> None:
        """Ends the connections; calls under way end with an error."""
        await self._channels.close()

    async def unary(self, rpc: Rpc[RequestT, ResponseT], request: RequestT, context: CallContext) -> ResponseT:
        """One call, sent again after the server's delay where the server is overloaded.

        Raises:
            PolarvecError: It failed.
        """
        response, _ = await self._unary.call(rpc, request, context)
        return response

    async def embed(
        self, batches: Sequence[Batch], template: pb.EmbedRequest, context: CallContext
    ) -> AsyncGenerator[EmbedPart, None]:
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
                window.append(asyncio.create_task(self._embed_batch(batch, template, context)))
            while window:
                for part in await window.popleft():
                    yield part
        finally:
            for task in window:
                task.cancel()
            await asyncio.gather(*window, return_exceptions=True)

    async def stream(
        self, texts: Iterable[str] | AsyncIterable[str], ledger: StreamLedger, context: CallContext
    ) -> AsyncGenerator[StreamItem, None]:
        """Runs a bulk job: reads the input only while the ledger has room.

        Raises:
            PolarvecError: The job failed as a whole.
        """
        source = aiter(texts) if isinstance(texts, AsyncIterable) else _aiter(texts)
        calls, lanes = AsyncStreamCalls(self._channels, context.metadata), Lanes(self._policy.rotation)
        try:
            while not ledger.done:
                if ledger.has_room:
                    await _read_batch(source, ledger)
                for lane, request in ledger.outgoing(lanes.usable()):
                    calls.send(lane, request)
                    lanes.opened(lane)
                wait_s = min(lanes.wait_s(), context.timeout_s) or ledger.wait_s()
                started_s = time.monotonic()
                event = await calls.receive(wait_s)
                waited_s = min(wait_s, time.monotonic() - started_s)
                if event is not None and event.answer is not None:
                    lanes.answered(event.lane)
                    ledger.settle(event.answer)
                else:
                    if event is not None and event.error is not None:
                        await calls.drop(event.lane)
                        lanes.failed(event.lane, event.error)
                        ledger.call_failed(event.lane, event.error)
                    for lane in ledger.waited(waited_s, lanes.usable()):
                        await calls.drop(lane)
                        lanes.give_up(lane)
                for item in ledger.ready():
                    yield item
            await calls.finish()
        finally:
            await calls.cancel()

    async def _embed_batch(self, batch: Batch, template: pb.EmbedRequest, context: CallContext) -> list[EmbedPart]:
        try:
            response, timings = await self._unary.call(EMBED, embed_request(template, batch.texts), context)
        except PolarvecError as error:
            if not batch.can_halve_after(error):
                raise batch.in_callers_terms(error) from error.__cause__
        else:
            return [EmbedPart(batch, response, timings)]
        parts: list[EmbedPart] = []
        for half in batch.halves():
            parts += await self._embed_batch(half, template, context)
        return parts


async def _aiter(texts: Iterable[str]) -> AsyncIterator[str]:
    for text in texts:
        yield text


async def _read_batch(source: AsyncIterator[str], ledger: StreamLedger) -> None:
    async for text in source:
        if ledger.add(text) or not ledger.has_room:
            return
    ledger.end_input()
