"""The EmbedStream calls of one bulk job, blocking: one to each endpoint that has work."""

from __future__ import annotations

import queue
import threading
import weakref
from collections.abc import Callable
from typing import Any, Final

import grpc
from polarvec_proto.v1 import embedding_pb2 as pb

from polarvec._channel import EMBED_STREAM, closed_during_call
from polarvec._errors import PolarvecError, from_rpc_error
from polarvec._lanes import StreamEvent
from polarvec._stream import CALL_TIMEOUT_S, FINISH_TIMEOUT_S, ended_early
from polarvec._sync_channels import SyncChannels

# Both of gRPC's threads end within milliseconds; a program is not to hang on one that does not.
_THREADS_TIMEOUT_S = 1.0


class SyncStreamCalls:
    """Opens a call at the first item for an endpoint; all answers come out of one queue."""

    def __init__(self, channels: SyncChannels, metadata: tuple[tuple[str, str], ...]) -> None:
        """Opens nothing yet."""
        self._channels: Final = channels
        self._metadata: Final = metadata
        self._inbox: queue.SimpleQueue[tuple[_StreamCall, pb.EmbedStreamResponse | PolarvecError]] = queue.SimpleQueue()
        self._calls: dict[int, _StreamCall] = {}
        # At the interpreter's exit, too: later gRPC's threads are frozen, and may hold what ending a call waits for.
        self._end: Final = weakref.finalize(self, _end_all, self._calls)

    def send(self, lane: int, request: pb.EmbedStreamRequest) -> None:
        """Hands one item over; gRPC sends it when the server has room."""
        if lane not in self._calls:
            channel = self._channels.open(lane)
            with self._channels.in_use():
                self._calls[lane] = _StreamCall(channel, self._metadata, lane, self._inbox)
        self._calls[lane].send(request)

    def receive(self, wait_s: float) -> StreamEvent | None:
        """The next answer or end of a call, or None if nothing came in time.

        Raises:
            RuntimeError: The client was closed.
        """
        try:
            call, answer = self._inbox.get(timeout=wait_s) if wait_s > 0 else self._inbox.get_nowait()
        except queue.Empty:
            return None
        if self._calls.get(call.lane) is not call:  # A call that was given up; its items are elsewhere by now.
            return None
        if isinstance(answer, PolarvecError):
            if self._channels.closed:
                raise closed_during_call() from answer
            return StreamEvent(call.lane, error=answer)
        return StreamEvent(call.lane, answer=answer)

    def drop(self, lane: int) -> None:
        """Ends the call to an endpoint."""
        call = self._calls.pop(lane)
        call.cancel()
        call.join()

    def finish(self) -> None:
        """Says that nothing more comes, and lets the servers end their calls."""
        for call in self._calls.values():
            call.half_close()
        for call in self._calls.values():
            call.wait(FINISH_TIMEOUT_S)

    def cancel(self) -> None:
        """Ends every call; harmless after `finish`."""
        _end_all(self._calls)
        self._end.detach()


class _StreamCall:
    """One call: what is sent waits in a queue of its own, a thread puts the answers into the job's.

    Both queues are bounded by the ledger's window.
    """

    def __init__(
        self,
        channel: grpc.Channel,
        metadata: tuple[tuple[str, str], ...],
        lane: int,
        inbox: queue.SimpleQueue[tuple[_StreamCall, pb.EmbedStreamResponse | PolarvecError]],
    ) -> None:
        self.lane: Final = lane
        self._inbox: Final = inbox
        self._outbox: queue.SimpleQueue[pb.EmbedStreamRequest | None] = queue.SimpleQueue()
        self._read_out, self._over = threading.Event(), threading.Event()
        # Any: grpcio's types leave out that the call is a future, too.
        method: Any = channel.stream_stream(EMBED_STREAM.path, EMBED_STREAM.serialize, EMBED_STREAM.parse)
        self._call = method(_Requests(self._outbox, self._read_out), timeout=CALL_TIMEOUT_S, metadata=metadata)
        self._call.add_done_callback(_setter(self._over))
        self._reader = threading.Thread(target=self._read, name="polarvec-stream", daemon=True)
        self._reader.start()

    def send(self, request: pb.EmbedStreamRequest) -> None:
        self._outbox.put(request)

    def half_close(self) -> None:
        self._outbox.put(None)

    def cancel(self) -> None:
        self._outbox.put(None)
        self._call.cancel()

    def wait(self, timeout_s: float) -> None:
        self._reader.join(timeout_s)

    def join(self) -> None:
        """Waits until no thread does anything for a call that was cancelled.

        gRPC's own two are daemons. One that the interpreter's exit freezes inside the call's lock would hang the
        process as soon as the call is collected.
        """
        self._reader.join()
        self._over.wait(_THREADS_TIMEOUT_S)
        self._read_out.wait(_THREADS_TIMEOUT_S)

    def _read(self) -> None:
        try:
            for answer in self._call:
                self._inbox.put((self, answer))
        except grpc.RpcError as error:
            self._inbox.put((self, from_rpc_error(error)))
        else:
            self._inbox.put((self, ended_early()))


class _Requests:
    """What gRPC's thread sends; says when that thread has let go of it, which it does at its very end."""

    def __init__(self, outbox: queue.SimpleQueue[pb.EmbedStreamRequest | None], let_go: threading.Event) -> None:
        self._outbox: Final = outbox
        self._let_go: Final = let_go

    def __iter__(self) -> _Requests:
        return self

    def __next__(self) -> pb.EmbedStreamRequest:
        if (request := self._outbox.get()) is None:
            raise StopIteration
        return request

    def __del__(self) -> None:
        self._let_go.set()


def _setter(event: threading.Event) -> Callable[[object], None]:
    return lambda _: event.set()


def _end_all(calls: dict[int, _StreamCall]) -> None:
    for call in calls.values():
        call.cancel()
    for call in calls.values():
        call.join()
    # A call is collected here and now, and not at the interpreter's exit.
    calls.clear()
