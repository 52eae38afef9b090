"""Runs the tokenizer: at once where it has little to do, in another thread otherwise."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Executor
from typing import TypeVar

from polarvec_server.errors import Overloaded

# Below this many characters a hop to another thread costs more than the tokenizer itself (about 0.1 ms).
_INLINE_CHARACTERS = 1000
_COUNTING_CALLS = 4
_COUNTING_DELAY_S = 0.5

T = TypeVar("T")


class TokenizerThreads:
    """The threads of one worker for one model, and the rule who waits for them."""

    def __init__(self, executor: Executor) -> None:
        self._executor = executor
        self._counting = asyncio.Semaphore(_COUNTING_CALLS)

    async def run(self, work: Callable[[], T], character_count: int) -> T:
        """Returns what `work` returns; few characters are worked on right here."""
        if character_count < _INLINE_CHARACTERS:
            return work()
        return await asyncio.get_running_loop().run_in_executor(self._executor, work)

    @contextlib.asynccontextmanager
    async def counting(self, *, wait_for_room: bool) -> AsyncIterator[None]:
        """Holds a place among the calls that need no encoder: callers that embed must find a thread free.

        Raises:
            Overloaded: Four such calls are there, and this one does not wait for room.
        """
        if self._counting.locked() and not wait_for_room:
            raise Overloaded(_COUNTING_DELAY_S)
        async with self._counting:
            yield
