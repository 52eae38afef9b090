"""The blocking side of the wire: one call, a list of texts as several calls, a bulk job."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from polarvec_proto.v1 import embedding_pb2 as pb

from polarvec._batching import Batch
from polarvec._channel import EMBED, ChannelSettings, Rpc
from polarvec._context import CallContext
from polarvec._errors import PolarvecError
from polarvec._lanes import Lanes
from polarvec._requests import embed_request
from polarvec._results import EmbedPart
from polarvec._retry import CallPolicy
from polarvec._stream import StreamLedger
from polarvec._sync_channels import SyncChannels
from polarvec._sync_stream import SyncStreamCalls
from polarvec._sync_unary import Flight, SyncUnary
from polarvec._types import StreamItem

RequestT = TypeVar("RequestT")
ResponseT = TypeVar("ResponseT")


class SyncCalls:
    """The calls of one client; safe to use from several threads."""

    def __init__(self, settings: ChannelSettings, *, max_in_flight: int, hedge_after_s: float | None) -> None:
        """Opens nothing yet."""
        self._max_in_flight: Final = max_in_flight
        self._channels: Final = SyncChannels(settings)
        self._policy: Final = CallPolicy(len(settings.endpoints), hedge_after_s=hedge_after_s)
        self._unary: Final = SyncUnary(self._channels, self._policy)

    def close(self) -> None:
        """Ends the connections; calls under way end with an error."""
        self._channels.close()

    def unary(self, rpc: Rpc[RequestT, ResponseT], request: RequestT, context: CallContext) -> ResponseT:
        """One call, sent again after the server's delay where the server is overloaded.

        Raises:
            PolarvecError: It failed.
        """
        response, _ = self._unary.land(self._unary.launch(rpc, request, context, background=False))
        return response

    def embed(self, batches: Sequence[Batch], template: pb.EmbedRequest, context: CallContext) -> Iterator[EmbedPart]:
        """The batches' answers in order, with a bounded number of calls in flight.

        Raises:
            PolarvecError: A batch failed; the calls still in flight are cancelled.
        """
        window: deque[_BatchFlight] = deque()
        try:
            for batch in batches:
                if len(window) >= self._max_in_flight:
                    yield from self._land(window.popleft(), template, context)
                window.append(self._launch(batch, template, context, background=len(batches) > 1))
            while window:
                yield from self._land(window.popleft(), template, context)
        finally:
            for flight in window:
                flight.call.cancel()

    def stream(self, texts: Iterable[str], ledger: StreamLedger, context: CallContext) -> Iterator[StreamItem]:
        """Runs a bulk job: reads the input in the caller's thread, and only while the ledger has room.

        Raises:
            PolarvecError: The job failed as a whole.
        """
        source = iter(texts)
        calls, lanes = SyncStreamCalls(self._channels, context.metadata), Lanes(self._policy.rotation)
        try:
            while not ledger.done:
                if ledger.has_room:
                    _read_batch(source, ledger)
                for lane, request in ledger.outgoing(lanes.usable()):
                    calls.send(lane, request)
                    lanes.opened(lane)
                wait_s = min(lanes.wait_s(), context.timeout_s) or ledger.wait_s()
                started_s = time.monotonic()
                event = calls.receive(wait_s)
                waited_s = min(wait_s, time.monotonic() - started_s)
                if event is not None and event.answer is not None:
                    lanes.answered(event.lane)
                    ledger.settle(event.answer)
                else:
                    if event is not None and event.error is not None:
                        calls.drop(event.lane)
                        lanes.failed(event.lane, event.error)
                        ledger.call_failed(event.lane, event.error)
                    for lane in ledger.waited(waited_s, lanes.usable()):
                        calls.drop(lane)
                        lanes.give_up(lane)
                yield from ledger.ready()
            calls.finish()
        finally:
            calls.cancel()

    def _launch(
        self, batch: Batch, template: pb.EmbedRequest, context: CallContext, *, background: bool
    ) -> _BatchFlight:
        request = embed_request(template, batch.texts)
        return _BatchFlight(batch, self._unary.launch(EMBED, request, context, background=background))

    def _land(self, flight: _BatchFlight, template: pb.EmbedRequest, context: CallContext) -> Iterator[EmbedPart]:
        try:
            response, timings = self._unary.land(flight.call)
        except PolarvecError as error:
            if not flight.batch.can_halve_after(error):
                raise flight.batch.in_callers_terms(error) from error.__cause__
        else:
            yield EmbedPart(flight.batch, response, timings)
            return
        for half in flight.batch.halves():
            yield from self._land(self._launch(half, template, context, background=False), template, context)


@dataclass(frozen=True, slots=True)
class _BatchFlight:
    """A batch and its call under way."""

    batch: Batch
    call: Flight[Any, pb.EmbedResponse]


def _read_batch(source: Iterator[str], ledger: StreamLedger) -> None:
    for text in source:
        if ledger.add(text) or not ledger.has_room:
            return
    ledger.end_input()
