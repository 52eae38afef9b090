"""The blocking side of the wire: one lazy channel, calls with deadlines, several in flight, one bulk stream."""

from __future__ import annotations

import queue
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import grpc
from polarvec_proto.v1 import embedding_pb2 as pb

from polarvec._batching import Batch
from polarvec._channel import EMBED, EMBED_STREAM, ChannelSettings, Rpc
from polarvec._errors import PolarvecError, from_rpc_error
from polarvec._requests import embed_request
from polarvec._results import EmbedPart, call_timings
from polarvec._retry import Deadline, overload_delay_s
from polarvec._stream import CALL_TIMEOUT_S, FINISH_TIMEOUT_S, StreamLedger, ended_early
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
        deadline = Deadline.after(timeout_s)
        response, _ = self._finish(rpc, request, deadline, self._start(rpc, request, deadline))
        return response

    def embed(self, batches: Iterable[Batch], template: pb.EmbedRequest, timeout_s: float) -> Iterator[EmbedPart]:
        """The batches' answers in order, with a bounded number of calls in flight.

        Raises:
            PolarvecError: A batch failed; the calls still in flight are cancelled.
        """
        window: deque[_Flight] = deque()
        try:
            for batch in batches:
                if len(window) >= self._max_in_flight:
                    yield from self._land(window.popleft(), template, timeout_s)
                window.append(self._launch(batch, template, timeout_s))
            while window:
                yield from self._land(window.popleft(), template, timeout_s)
        finally:
            for flight in window:
                flight.call.cancel()

    def stream(self, texts: Iterable[str], ledger: StreamLedger, timeout_s: float) -> Iterator[StreamItem]:
        """Runs a bulk job: reads the input in the caller's thread, and only while the ledger has room.

        Raises:
            PolarvecError: The job failed as a whole.
        """
        source = iter(texts)
        call = _StreamCall(self._open_channel(), self._settings)
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
                    ledger.call_failed(error)
                    call.cancel()
                    call = _StreamCall(self._open_channel(), self._settings)
                    continue
                if answer is None:
                    ledger.waited(wait_s, timeout_s)
                else:
                    ledger.settle(answer)
                yield from ledger.ready()
            call.finish()
        finally:
            call.cancel()

    def _launch(self, batch: Batch, template: pb.EmbedRequest, timeout_s: float) -> _Flight:
        deadline, request = Deadline.after(timeout_s), embed_request(template, batch.texts)
        return _Flight(batch, request, deadline, self._start(EMBED, request, deadline))

    def _land(self, flight: _Flight, template: pb.EmbedRequest, timeout_s: float) -> Iterator[EmbedPart]:
        try:
            response, timings = self._finish(EMBED, flight.request, flight.deadline, flight.call)
        except PolarvecError as error:
            if not flight.batch.can_halve_after(error):
                raise flight.batch.in_callers_terms(error) from error.__cause__
        else:
            yield EmbedPart(flight.batch, response, timings)
            return
        for half in flight.batch.halves():
            yield from self._land(self._launch(half, template, timeout_s), template, timeout_s)

    def _start(self, rpc: Rpc[RequestT, ResponseT], request: RequestT, deadline: Deadline) -> Any:
        method = self._open_channel().unary_unary(rpc.path, rpc.serialize, rpc.parse)
        return method.future(request, timeout=deadline.remaining_s(), metadata=self._settings.metadata)

    def _finish(
        self, rpc: Rpc[RequestT, ResponseT], request: RequestT, deadline: Deadline, call: Any
    ) -> tuple[ResponseT, CallTimings]:
        while True:
            try:
                return call.result(), call_timings(call.trailing_metadata())
            except grpc.RpcError as error:
                if self._closed:
                    raise RuntimeError("this client was closed during the call") from error
                failure = from_rpc_error(error)
            except BaseException:  # KeyboardInterrupt, gevent's kill: nobody waits for the answer any more.
                call.cancel()
                raise
            delay_s = overload_delay_s(failure, deadline)
            if delay_s is None:
                raise failure
            time.sleep(delay_s)
            call = self._start(rpc, request, deadline)

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
    """A batch under way."""

    batch: Batch
    request: pb.EmbedRequest
    deadline: Deadline
    call: Any


class _StreamCall:
    """One EmbedStream call: what is sent waits in one queue, a thread of its own puts the answers into another.

    Both queues are bounded by the ledger's window.
    """

    def __init__(self, channel: grpc.Channel, settings: ChannelSettings) -> None:
        self._outbox: queue.SimpleQueue[pb.EmbedStreamRequest | None] = queue.SimpleQueue()
        self._inbox: queue.SimpleQueue[pb.EmbedStreamResponse | PolarvecError] = queue.SimpleQueue()
        method = channel.stream_stream(EMBED_STREAM.path, EMBED_STREAM.serialize, EMBED_STREAM.parse)
        self._call = method(iter(self._outbox.get, None), timeout=CALL_TIMEOUT_S, metadata=settings.metadata)
        self._reader = threading.Thread(target=self._read, name="polarvec-stream", daemon=True)
        self._reader.start()

    def send(self, request: pb.EmbedStreamRequest) -> None:
        """Hands one item over; gRPC sends it when the server has room."""
        self._outbox.put(request)

    def receive(self, wait_s: float) -> pb.EmbedStreamResponse | None:
        """The next answer, or None if none came in time.

        Raises:
            PolarvecError: The call is over.
        """
        try:
            answer = self._inbox.get(timeout=wait_s) if wait_s > 0 else self._inbox.get_nowait()
        except queue.Empty:
            return None
        if isinstance(answer, PolarvecError):
            raise answer
        return answer

    def finish(self) -> None:
        """Says that nothing more comes, and lets the server end the call."""
        self._outbox.put(None)
        self._reader.join(FINISH_TIMEOUT_S)

    def cancel(self) -> None:
        """Ends the call and its thread; harmless after `finish`."""
        self._outbox.put(None)
        self._call.cancel()
        self._reader.join()

    def _read(self) -> None:
        try:
            for answer in self._call:
                self._inbox.put(answer)
        except grpc.RpcError as error:
            self._inbox.put(from_rpc_error(error))
        else:
            self._inbox.put(ended_early())


def _read_batch(source: Iterator[str], ledger: StreamLedger) -> None:
    for text in source:
        if ledger.add(text) or not ledger.has_room:
            return
    ledger.end_input()
