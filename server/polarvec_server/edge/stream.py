"""The bulk call's items: several at a time, each with an answer of its own, the sender held back by flow control."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import structlog
from polarvec_proto.v1 import embedding_pb2 as pb

from polarvec_server.errors import InternalError, InvalidField, RequestError, to_status

_log = structlog.get_logger(__name__)
# Items of one stream at a time: enough to fill batches, few enough to bound what one caller can park here.
_ITEMS_AT_A_TIME = 16


async def answer_items(
    items: AsyncIterator[pb.EmbedStreamRequest], embed: Callable[[pb.EmbedRequest], Awaitable[pb.EmbedResponse]]
) -> AsyncIterator[pb.EmbedStreamResponse]:
    """Yields one answer an item as they become ready.

    An item is read only when fewer than 16 are on their way or waiting to be sent, so a slow reader or a busy encoder
    holds the sender back through HTTP/2's flow control.

    Raises:
        RequestError: An item could not be read at all; those before it have been answered.
    """
    answers: asyncio.Queue[pb.EmbedStreamResponse | None] = asyncio.Queue()
    slots = asyncio.Semaphore(_ITEMS_AT_A_TIME)

    async def answer(item: pb.EmbedStreamRequest) -> None:
        answers.put_nowait(await _answer(item, embed))

    async def read() -> None:
        """Reads items until the sender is done, or one cannot be read; what was read is answered in either case."""
        unreadable: RequestError | None = None
        try:
            async with asyncio.TaskGroup() as group:
                await slots.acquire()
                try:
                    async for item in items:
                        group.create_task(answer(item))
                        await slots.acquire()
                except RequestError as error:
                    unreadable = error
        finally:
            answers.put_nowait(None)
        if unreadable is not None:
            raise unreadable

    reader = asyncio.create_task(read())
    try:
        while (response := await answers.get()) is not None:
            yield response
            slots.release()
        await reader
    finally:
        reader.cancel()


async def _answer(
    item: pb.EmbedStreamRequest, embed: Callable[[pb.EmbedRequest], Awaitable[pb.EmbedResponse]]
) -> pb.EmbedStreamResponse:
    number = item.item_number
    try:
        if not item.HasField("request"):
            raise InvalidField("request", "is required")
        return pb.EmbedStreamResponse(item_number=number, response=await embed(item.request))
    except RequestError as error:
        return pb.EmbedStreamResponse(item_number=number, error=to_status(error))
    except Exception:
        _log.exception("an item of a stream failed")
        return pb.EmbedStreamResponse(item_number=number, error=to_status(InternalError()))
