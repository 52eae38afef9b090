"""The blocking side of the wire: one lazy channel, calls with deadlines, several in flight, bulk jobs."""

from __future__ import annotations

import itertools
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import grpc
from polarvec_proto.v1 import embedding_pb2 as pb

from polarvec._batching import Batch
from polarvec._channel import EMBED, ChannelSettings, Rpc
from polarvec._errors import PolarvecError, from_rpc_error
from polarvec._requests import embed_request
from polarvec._results import EmbedPart, call_timings
from polarvec._retry import Deadline, call_delay_s
from polarvec._stream import StreamLedger
from polarvec._sync_stream import SyncStreamCall
from polarvec._types import CallTimings, StreamItem

RequestT = TypeVar("RequestT")
ResponseT = TypeVar("ResponseT")


class SyncCalls:
    """The calls of one client; safe to use from several threads."""

    def __init__(self, settings: ChannelSettings, *, max_in_flight: int) -> None:
        """Opens nothing yet."""
        self._settings: Final = settings
        self._max_in_flight: Final = max_in_flight
        self._lock = threading.Lock()
        self._channel: grpc.Channel | None = None
        self._closed = False

    def close(self) -> None:
        """Ends the connection; calls under way end with an error."""
        with self._lock:
            self._closed = True
            channel, self._channel = self._channel, None
        if channel is not None:
            channel.close()

    def unary(self, rpc: Rpc[RequestT, ResponseT], request: RequestT, timeout_s: float) -> ResponseT:
        """One call, sent again after the server's delay where the server is overloaded.

        Raises:
            PolarvecError: It failed.
        """
        response, _ = self._finish(rpc, request, Deadline.after(timeout_s))
        return response

    def embed(self, batches: Sequence[Batch], template: pb.EmbedRequest, timeout_s: float) -> Iterator[EmbedPart]:
        """The batches' answers in order, with a bounded number of calls in flight.

        Raises:
            PolarvecError: A batch failed; the calls still in flight are cancelled.
        """
        window: deque[_Flight] = deque()
        try:
            for batch in batches:
                if len(window) >= self._max_in_flight:
                    yield from self._land(window.popleft(), template, timeout_s)
                window.append(self._launch(batch, template, timeout_s, alone=len(batches) == 1))
            while window:
                yield from self._land(window.popleft(), template, timeout_s)
        finally:
            for flight in window:
                if flight.begun is not None:
                    flight.begun.cancel()

    def stream(self, texts: Iterable[str], ledger: StreamLedger, timeout_s: float) -> Iterator[StreamItem]:
        """Runs a bulk job: reads the input in the caller's thread, and only while the ledger has room.

        Raises:
            PolarvecError: The job failed as a whole.
        """
        source = iter(texts)
        call = SyncStreamCall(self._open_channel(), self._settings)
        try:
            while not ledger.done:
                if ledger.has_room:
                    _read_batch(source, ledger)
                for request in ledger.outgoing():
                    call.send(request)
                wait_s = ledger.wait_s(timeout_s)
                try:
                    answer = call.receive(wait_s)
                except PolarvecError as error:
                    delay_s = ledger.call_failed(error, timeout_s)
                    call.cancel()
                    time.sleep(delay_s)
                    call = SyncStreamCall(self._open_channel(), self._settings)
                    continue
                if answer is None:
                    ledger.waited(wait_s, timeout_s)
                else:
                    ledger.settle(answer)
                yield from ledger.ready()
            call.finish()
        finally:
            call.cancel()

    def _launch(self, batch: Batch, template: pb.EmbedRequest, timeout_s: float, *, alone: bool) -> _Flight:
        deadline, request = Deadline.after(timeout_s), embed_request(template, batch.texts)
        if alone:  # A call that the caller's thread makes itself costs a third less than one begun in the background.
            return _Flight(batch, request, deadline, None)
        call = self._method(EMBED).future(request, timeout=deadline.remaining_s(), metadata=self._settings.metadata)
        return _Flight(batch, request, deadline, call)

    def _land(self, flight: _Flight, template: pb.EmbedRequest, timeout_s: float) -> Iterator[EmbedPart]:
        try:
            response, timings = self._finish(EMBED, flight.request, flight.deadline, flight.begun)
        except PolarvecError as error:
            if not flight.batch.can_halve_after(error):
                raise flight.batch.in_callers_terms(error) from error.__cause__
        else:
            yield EmbedPart(flight.batch, response, timings)
            return
        for half in flight.batch.halves():
            yield from self._land(self._launch(half, template, timeout_s, alone=True), template, timeout_s)

    def _finish(
        self, rpc: Rpc[RequestT, ResponseT], request: RequestT, deadline: Deadline, begun: Any = None
    ) -> tuple[ResponseT, CallTimings]:
        for attempt in itertools.count(1):
            try:
                if begun is not None:
                    return begun.result(), call_timings(begun.trailing_metadata())
                response, call = self._method(rpc).with_call(
                    request, timeout=deadline.remaining_s(), metadata=self._settings.metadata
                )
                return response, call_timings(call.trailing_metadata())
            except grpc.RpcError as error:
                if self._closed:
                    raise RuntimeError("this client was closed during the call") from error
                failure = from_rpc_error(error)
            except BaseException:  # KeyboardInterrupt, gevent's kill: nobody waits for the answer any more.
                if begun is not None:
                    begun.cancel()
                raise
            delay_s = call_delay_s(failure, attempt, deadline)
            if delay_s is None:
                raise failure
            time.sleep(delay_s)
            begun = None
        raise AssertionError("count() does not end")

    def _method(self, rpc: Rpc[RequestT, ResponseT]) -> Any:
        return self._open_channel().unary_unary(rpc.path, rpc.serialize, rpc.parse)

    def _open_channel(self) -> grpc.Channel:
        with self._lock:
            if self._closed:
                raise RuntimeError("this client is closed; make a new one")
            if self._channel is None:
                target, credentials, options = self._settings.target, self._settings.credentials, self._settings.options
                self._channel = (
                    grpc.insecure_channel(target, options=options)
                    if credentials is None
                    else grpc.secure_channel(target, credentials, options=options)
                )
            return self._channel


@dataclass(frozen=True, slots=True)
class _Flight:
    """A batch under way; `begun` is its call, or None if it is still to be made."""

    batch: Batch
    request: pb.EmbedRequest
    deadline: Deadline
    begun: Any


def _read_batch(source: Iterator[str], ledger: StreamLedger) -> None:
    for text in source:
        if ledger.add(text) or not ledger.has_room:
            return
    ledger.end_input()
