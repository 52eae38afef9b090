"""One EmbedStream call, for asyncio."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from typing import Any, TypeVar

import grpc
import grpc.aio
from polarvec_proto.v1 import embedding_pb2 as pb

from polarvec._channel import EMBED_STREAM, ChannelSettings
from polarvec._errors import PolarvecError, from_rpc_error
from polarvec._stream import CALL_TIMEOUT_S, FINISH_TIMEOUT_S, ended_early

ResultT = TypeVar("ResultT")

_WRITE_FAILED = "Internal error from Core"
_STATUS_TIMEOUT_S = 0.5


class AsyncStreamCall:
    """One EmbedStream call: what is sent waits in a queue that gRPC empties, answers are read when asked for."""

    def __init__(self, channel: grpc.aio.Channel, settings: ChannelSettings) -> None:
        """Opens the call."""
        self._outbox: asyncio.Queue[pb.EmbedStreamRequest | None] = asyncio.Queue()
        self._reading: asyncio.Task[Any] | None = None
        method = channel.stream_stream(EMBED_STREAM.path, EMBED_STREAM.serialize, EMBED_STREAM.parse)
        self._call = method(self._requests(), timeout=CALL_TIMEOUT_S, metadata=settings.metadata)
        self._end: asyncio.Future[PolarvecError] = asyncio.get_running_loop().create_future()
        self._call.add_done_callback(self._book_end)

    def send(self, request: pb.EmbedStreamRequest) -> None:
        """Hands one item over; gRPC sends it when the server has room."""
        self._outbox.put_nowait(request)

    async def receive(self, wait_s: float) -> pb.EmbedStreamResponse | None:
        """The next answer, or None if none came in time.

        Raises:
            PolarvecError: The call is over.
        """
        # A read that is cancelled ends the whole call, so it lives on in its task when the wait is over.
        self._reading = self._reading or asyncio.ensure_future(self._call.read())
        await asyncio.wait({self._reading}, timeout=wait_s)
        if not self._reading.done():
            return None
        reading, self._reading = self._reading, None
        try:
            answer = reading.result()
        except grpc.RpcError as error:
            # The status that the server sent, where grpc.aio has put one of its own in its place.
            await asyncio.wait({self._end}, timeout=_STATUS_TIMEOUT_S)
            raise (self._end.result() if self._end.done() else ended_early()) from error
        if not isinstance(answer, pb.EmbedStreamResponse):  # grpc.aio.EOF
            raise ended_early()
        return answer

    async def finish(self) -> None:
        """Says that nothing more comes, and lets the server end the call."""
        self._outbox.put_nowait(None)
        try:
            await self.receive(FINISH_TIMEOUT_S)
        except PolarvecError:
            return  # The call is over, which is all that was wanted.

    async def cancel(self) -> None:
        """Ends the call; harmless after `finish`."""
        self._outbox.put_nowait(None)
        self._call.cancel()
        if self._reading is not None:
            await asyncio.gather(self._reading, return_exceptions=True)

    def _book_end(self, _: object) -> None:
        """Keeps the server's status as soon as it is known.

        If a call ends while a request is being written, grpc.aio sets INTERNAL, before or after the status that the
        server sent (set_internal_error in _cygrpc/aio/call.pyx.pxi), and runs this callback each time.
        """
        code, details = _at_once(self._call.code()), _at_once(self._call.details())
        if details != _WRITE_FAILED and not self._end.done():
            trailers, initial = _at_once(self._call.trailing_metadata()), grpc.aio.Metadata()
            self._end.set_result(from_rpc_error(grpc.aio.AioRpcError(code, initial, trailers, details=details)))

    async def _requests(self) -> AsyncIterator[pb.EmbedStreamRequest]:
        while (request := await self._outbox.get()) is not None:
            yield request


def _at_once(coroutine: Coroutine[Any, Any, ResultT]) -> ResultT:
    """The result of a coroutine that has nothing to wait for, as those of a finished call have."""
    try:
        coroutine.send(None)
    except StopIteration as end:
        result: ResultT = end.value
        return result
    coroutine.close()
    raise RuntimeError("a finished call has no status")
