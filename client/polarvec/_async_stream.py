"""The EmbedStream calls of one bulk job, for asyncio: one to each endpoint that has work."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from typing import Any, Final, TypeVar

import grpc
import grpc.aio
from polarvec_proto.v1 import embedding_pb2 as pb

from polarvec._async_channels import AsyncChannels
from polarvec._channel import EMBED_STREAM, closed_during_call
from polarvec._errors import PolarvecError, from_rpc_error
from polarvec._lanes import StreamEvent
from polarvec._stream import CALL_TIMEOUT_S, FINISH_TIMEOUT_S, ended_early

ResultT = TypeVar("ResultT")

_WRITE_FAILED = "Internal error from Core"
_STATUS_TIMEOUT_S = 0.5


class AsyncStreamCalls:
    """Opens a call at the first item for an endpoint; answers are read when asked for."""

    def __init__(self, channels: AsyncChannels, metadata: tuple[tuple[str, str], ...]) -> None:
        """Opens nothing yet."""
        self._channels: Final = channels
        self._metadata: Final = metadata
        self._calls: dict[int, _StreamCall] = {}

    def send(self, lane: int, request: pb.EmbedStreamRequest) -> None:
        """Hands one item over; gRPC sends it when the server has room."""
        if lane not in self._calls:
            self._calls[lane] = _StreamCall(self._channels.open(lane), self._metadata, lane)
        self._calls[lane].send(request)

    async def receive(self, wait_s: float) -> StreamEvent | None:
        """The next answer or end of a call, or None if nothing came in time.

        Raises:
            RuntimeError: The client was closed.
        """
        if not self._calls:
            await asyncio.sleep(wait_s)
            return None
        readings = {call.reading(): call for call in self._calls.values()}
        done, _ = await asyncio.wait(readings, timeout=wait_s, return_when=asyncio.FIRST_COMPLETED)
        if not done:
            return None
        reading = done.pop()
        if reading.cancelled() and self._channels.closed:  # Closing cancels the calls, but no task of the caller's.
            raise closed_during_call()
        call = readings[reading]
        try:
            return StreamEvent(call.lane, answer=await call.answer())
        except PolarvecError as error:
            if self._channels.closed:
                raise closed_during_call() from error
            return StreamEvent(call.lane, error=error)

    async def drop(self, lane: int) -> None:
        """Ends the call to an endpoint."""
        await self._calls.pop(lane).cancel()

    async def finish(self) -> None:
        """Says that nothing more comes, and lets the servers end their calls."""
        for call in self._calls.values():
            call.half_close()
        if self._calls:
            await asyncio.wait([call.reading() for call in self._calls.values()], timeout=FINISH_TIMEOUT_S)

    async def cancel(self) -> None:
        """Ends every call; harmless after `finish`."""
        for call in self._calls.values():
            await call.cancel()


class _StreamCall:
    """One call: what is sent waits in a queue that gRPC empties."""

    def __init__(self, channel: grpc.aio.Channel, metadata: tuple[tuple[str, str], ...], lane: int) -> None:
        self.lane: Final = lane
        self._outbox: asyncio.Queue[pb.EmbedStreamRequest | None] = asyncio.Queue()
        self._reading: asyncio.Task[Any] | None = None
        method = channel.stream_stream(EMBED_STREAM.path, EMBED_STREAM.serialize, EMBED_STREAM.parse)
        self._call = method(self._requests(), timeout=CALL_TIMEOUT_S, metadata=metadata)
        self._end: asyncio.Future[PolarvecError] = asyncio.get_running_loop().create_future()
        self._call.add_done_callback(self._book_end)

    def send(self, request: pb.EmbedStreamRequest) -> None:
        self._outbox.put_nowait(request)

    def reading(self) -> asyncio.Task[Any]:
        """The read under way, or a new one; cancelling it would end the whole call."""
        self._reading = self._reading or asyncio.ensure_future(self._call.read())
        return self._reading

    async def answer(self) -> pb.EmbedStreamResponse:
        """What the read that is done has brought.

        Raises:
            PolarvecError: The call is over.
        """
        reading, self._reading = self.reading(), None
        try:
            answer = reading.result()
        except grpc.RpcError as error:
            # The status that the server sent, where grpc.aio has put one of its own in its place.
            await asyncio.wait({self._end}, timeout=_STATUS_TIMEOUT_S)
            raise (self._end.result() if self._end.done() else ended_early()) from error
        if not isinstance(answer, pb.EmbedStreamResponse):  # grpc.aio.EOF
            raise ended_early()
        return answer

    def half_close(self) -> None:
        self._outbox.put_nowait(None)

    async def cancel(self) -> None:
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
