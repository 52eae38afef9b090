"""One EmbedStream call, blocking."""

from __future__ import annotations

import queue
import threading

import grpc
from polarvec_proto.v1 import embedding_pb2 as pb

from polarvec._channel import EMBED_STREAM, ChannelSettings
from polarvec._errors import PolarvecError, from_rpc_error
from polarvec._stream import CALL_TIMEOUT_S, FINISH_TIMEOUT_S, ended_early


class SyncStreamCall:
    """One EmbedStream call: what is sent waits in one queue, a thread of its own puts the answers into another.

    Both queues are bounded by the ledger's window.
    """

    def __init__(self, channel: grpc.Channel, settings: ChannelSettings) -> None:
        """Opens the call."""
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
