"""Streams whose answers keep the order of their items: several on their way at a time, the first bad one ends it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TypeVar

from polarvec_server.errors import RequestError

Item = TypeVar("Item")
Answer = TypeVar("Answer")


async def answer_in_order(
    items: AsyncIterator[Item], answer: Callable[[Item], Awaitable[Answer]], at_a_time: int
) -> AsyncIterator[Answer]:
    """Yields the answers in the order of the items.

    An item is read only when fewer than `at_a_time` are on their way or waiting to be sent, so a slow reader or a busy
    encoder holds the sender back through HTTP/2's flow control.

    Raises:
        RequestError: An item could not be answered or read; those before it have been answered.
    """
    on_their_way: asyncio.Queue[asyncio.Future[Answer] | None] = asyncio.Queue()
    slots = asyncio.Semaphore(at_a_time)
    tasks: set[asyncio.Future[Answer]] = set()

    async def read() -> None:
        try:
            await slots.acquire()
            async for item in items:
                task = asyncio.ensure_future(answer(item))
                tasks.add(task)
                on_their_way.put_nowait(task)
                await slots.acquire()
        except RequestError as error:
            unreadable: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
            unreadable.set_exception(error)
            tasks.add(unreadable)
            on_their_way.put_nowait(unreadable)
        finally:
            on_their_way.put_nowait(None)

    reader = asyncio.create_task(read())
    try:
        while (task := await on_their_way.get()) is not None:
            yield await task
            tasks.discard(task)
            slots.release()
        await reader
    finally:
        reader.cancel()
        for left in tasks:
            left.cancel()
        # Errors of items behind a bad one are nobody's; asked for, asyncio does not report them as forgotten.
        await asyncio.gather(reader, *tasks, return_exceptions=True)
