"""Texts that come one by one, faster than the encoder answers, go to it together."""

from __future__ import annotations

import asyncio
import collections
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

import grpc
import numpy as np
from numpy.typing import NDArray

from polarvec_server.errors import RequestError
from polarvec_server.pipeline.embedder import Embedded
from polarvec_server.pipeline.values import TextOptions, Timings, VectorOptions

# One group is computed, one waits: with the third the encoder would know no more, and groups would be smaller.
_GROUPS_AT_A_TIME = 2
_MAX_TEXTS = 64
# About 12,000 tokens, some packs.
_MAX_CHARACTERS = 32_000

EmbedTexts = Callable[[Sequence[str], TextOptions, VectorOptions], Awaitable[tuple[Embedded, Timings]]]


@dataclass(frozen=True, slots=True)
class EmbeddedText:
    """One text's part of a group: its vector, (d,) float32, the tokens read, and where the group's time went."""

    vector: NDArray[np.float32]
    token_count: int
    timings: Timings


@dataclass(frozen=True, slots=True)
class _Waiting:
    text: str
    options: tuple[TextOptions, VectorOptions]
    answer: asyncio.Future[EmbeddedText]


class TextGroups:
    """The texts of one stream: the first goes at once and alone, those that come meanwhile go as one call."""

    def __init__(self, embed: EmbedTexts, max_texts: int) -> None:
        """Keeps what it works with.

        Args:
            embed: Embeds several texts with the same options.
            max_texts: Most texts that it takes.
        """
        self._embed, self._max_texts = embed, min(max_texts, _MAX_TEXTS)
        self._waiting: collections.deque[_Waiting] = collections.deque()
        self._running: set[asyncio.Task[None]] = set()

    async def embed(self, text: str, text_options: TextOptions, vector_options: VectorOptions) -> EmbeddedText:
        """Embeds one text. Raises what `embed` of the constructor raises for this text."""
        entry = _Waiting(text, (text_options, vector_options), asyncio.get_running_loop().create_future())
        self._waiting.append(entry)
        self._start()
        return await entry.answer

    def close(self) -> None:
        """Drops what is on its way."""
        self._waiting.clear()
        for task in self._running:
            task.cancel()

    def _start(self) -> None:
        while self._waiting and len(self._running) < _GROUPS_AT_A_TIME:
            task = asyncio.create_task(self._answer(self._take()))
            self._running.add(task)
            task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        self._start()

    def _take(self) -> list[_Waiting]:
        """Takes the first texts that have the same options, as many as may go together."""
        group = [self._waiting.popleft()]
        characters = len(group[0].text)
        while self._waiting and len(group) < self._max_texts and self._waiting[0].options == group[0].options:
            characters += len(self._waiting[0].text)
            if characters > _MAX_CHARACTERS:
                break
            group.append(self._waiting.popleft())
        return group

    async def _answer(self, group: list[_Waiting]) -> None:
        try:
            embedded, timings = await self._embed([entry.text for entry in group], *group[0].options)
        except RequestError as error:
            # A bad text must not spoil those before it, and its error is one about a single text.
            if error.code is grpc.StatusCode.INVALID_ARGUMENT and len(group) > 1:
                for entry in group:
                    await self._answer([entry])
                return
            _fail(group, error)
        except Exception as error:
            _fail(group, error)
        else:
            counts = embedded.tokenized.lengths.tolist()
            for entry, vector, count in zip(group, embedded.vectors, counts, strict=True):
                if not entry.answer.done():
                    entry.answer.set_result(EmbeddedText(vector, count, timings))


def _fail(group: list[_Waiting], error: Exception) -> None:
    for entry in group:
        if not entry.answer.done():
            entry.answer.set_exception(error)
