"""Computes no text twice: not in a call, not while another call computes it, not while its vector is still known.

Stands between the tokenizer and packing. Texts are the same when their token ids are: the prompt is in them.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from polarvec_server.errors import DeadlineExceeded, RequestError
from polarvec_server.pipeline.values import Priority, Timings, Tokenized

# The encoder takes packs of up to so many tokens first, so waiting for one takes no longer than computing a text.
_SMALL_TOKENS = 256
# A fault may be of the moment: followers compute once more, one for all. The second time it is theirs too.
_SHARED_FAILURES = 2


class KnownVectors(Protocol):
    """What remembers vectors: `pipeline.vector_cache`; texts are given as the bytes of their int32 token ids."""

    generation: int

    def get(self, token_ids: bytes) -> NDArray[np.float32] | None:
        """Returns the (D,) vector of a text, None if unknown."""
        ...

    def put(self, texts: Sequence[bytes], vectors: NDArray[np.float32], generation: int) -> None:
        """Keeps (N, D) vectors, if `generation` is what it was when they were begun."""
        ...


# Computes the texts: packing and dispatch. Returns (N, D) float32 in their order.
Compute = Callable[[Tokenized, Priority, float | None, Timings], Awaitable[NDArray[np.float32]]]


@dataclass(frozen=True, slots=True)
class Call:
    """What the stage has to know of a call; `settle` is told the tokens that the call itself computes."""

    priority: Priority
    deadline: float | None
    timings: Timings
    settle: Callable[[int], None]


@dataclass(slots=True)
class RepeatCounts:
    """Texts that were not computed, by where their vectors came from, since somebody last counted."""

    call: int = 0
    in_flight: int = 0
    cache: int = 0
    cache_misses: int = 0


@dataclass(slots=True, eq=False)
class _Flight:
    """Texts of one call on their way through queue and encoder; other calls wait for `ended`."""

    priority: Priority
    tokens: int
    texts: Sequence[bytes]
    vectors: NDArray[np.float32] | None = None
    error: RequestError | None = None
    timings: Timings = field(default_factory=Timings)
    ended: asyncio.Event = field(default_factory=asyncio.Event)


@dataclass(slots=True)
class _Answer:
    """The distinct texts of one call, and the rows of `pooled` that are still missing."""

    texts: list[bytes]
    pooled: NDArray[np.float32]
    missing: list[int]
    failures: int = 0


class Repeats:
    """The texts of one worker and one model that are being computed, and those that are known."""

    def __init__(self, compute: Compute, dimensions: int, pack_tokens: int, known: KnownVectors | None = None) -> None:
        """Starts with nothing under way.

        Args:
            compute: What computes texts.
            dimensions: D.
            pack_tokens: Most tokens of a pack.
            known: Remembers vectors; None remembers none.
        """
        self.counts = RepeatCounts()
        self._compute, self._dimensions, self._known = compute, dimensions, known
        # A call waits for another one's flight up to this size without being slower for it.
        self._patience_tokens = {Priority.INTERACTIVE: _SMALL_TOKENS, Priority.BULK: max(_SMALL_TOKENS, pack_tokens)}
        self._flights: dict[bytes, tuple[_Flight, int]] = {}

    async def embed(self, tokenized: Tokenized, call: Call) -> NDArray[np.float32]:
        """Returns the pooled vectors of a call's texts, (N, D) float32.

        Raises:
            RequestError: As the dispatcher; never because of what befell another call only.
        """
        texts = _texts(tokenized)
        # A place of each; texts that were cut may have become the same.
        rows = {text: row for row, text in enumerate(texts)}
        if len(rows) == len(texts):
            return await self._embed_distinct(tokenized, texts, call)
        self.counts.call += len(texts) - len(rows)
        distinct = tokenized.take(np.array(list(rows.values()), np.int64))
        pooled = await self._embed_distinct(distinct, list(rows), call)
        numbers = {text: number for number, text in enumerate(rows)}
        return pooled[[numbers[text] for text in texts]]

    async def _embed_distinct(self, tokenized: Tokenized, texts: list[bytes], call: Call) -> NDArray[np.float32]:
        if self._known is None and self._flights.keys().isdisjoint(texts):
            return await self._lead(tokenized, texts, call)
        answer = _Answer(texts, np.empty((len(texts), self._dimensions), np.float32), list(range(len(texts))))
        self._recall(answer)
        while answer.missing:
            await self._advance(tokenized, answer, call)
        return answer.pooled

    def _recall(self, answer: _Answer) -> None:
        """Fills in what is known."""
        if self._known is None:
            return
        missing = []
        for row, text in enumerate(answer.texts):
            vector = self._known.get(text)
            if vector is None:
                missing.append(row)
            else:
                answer.pooled[row] = vector
        answer.missing = missing
        self.counts.cache += len(answer.texts) - len(missing)
        self.counts.cache_misses += len(missing)

    async def _advance(self, tokenized: Tokenized, answer: _Answer, call: Call) -> None:
        """Computes the texts that nobody else computes, then waits for the others; failed ones stay missing."""
        led, followed = self._divide(tokenized, answer, call.priority)
        if led:
            whole = len(led) == len(answer.texts)
            own = tokenized if whole else tokenized.take(np.array(led))
            answer.pooled[led] = await self._lead(own, [answer.texts[row] for row in led], call)
        else:
            call.settle(0)
        answer.missing = []
        for flight, rows in followed.items():
            await self._follow(flight, call)
            if flight.vectors is not None:
                answer.pooled[list(rows)] = flight.vectors[list(rows.values())]
                self.counts.in_flight += len(rows)
                continue
            answer.missing += rows
            self._weigh(flight, answer)

    def _divide(
        self, tokenized: Tokenized, answer: _Answer, priority: Priority
    ) -> tuple[list[int], Mapping[_Flight, dict[int, int]]]:
        """Returns the rows to compute, and the flights to wait for: rows here to rows there."""
        led: list[int] = []
        followed: dict[_Flight, dict[int, int]] = {}
        patience = max(self._patience_tokens[priority], int(tokenized.offsets[-1]))
        for row in answer.missing:
            flight, place = self._flights.get(answer.texts[row], (None, 0))
            # What has a lower priority, or is much larger than this call, would be waited for too long.
            if flight is None or flight.priority > priority or flight.tokens > patience:
                led.append(row)
            else:
                followed.setdefault(flight, {})[row] = place
        return led, followed

    async def _lead(self, tokenized: Tokenized, texts: Sequence[bytes], call: Call) -> NDArray[np.float32]:
        """Computes texts, and lets other calls have them."""
        tokens = int(tokenized.offsets[-1])
        flight = _Flight(call.priority, tokens, texts)
        generation = self._known.generation if self._known else 0
        self._flights.update((text, (flight, row)) for row, text in enumerate(texts))
        try:
            call.settle(tokens)
            vectors = await self._compute(tokenized, call.priority, call.deadline, flight.timings)
            flight.vectors = vectors
        except DeadlineExceeded:
            raise
        except RequestError as error:
            flight.error = error
            raise
        finally:
            # Another call may have taken a text over, with a higher priority.
            for text in texts:
                if self._flights.get(text, (None, 0))[0] is flight:
                    del self._flights[text]
            flight.ended.set()
        call.timings.queue_ms += flight.timings.queue_ms
        call.timings.inference_ms += flight.timings.inference_ms
        if self._known:
            self._known.put(texts, vectors, generation)
        return vectors

    async def _follow(self, flight: _Flight, call: Call) -> None:
        """Waits until another call's flight has ended, well or not."""
        if flight.ended.is_set():
            return
        started = time.monotonic()
        try:
            async with asyncio.timeout(None if call.deadline is None else max(0.0, call.deadline - started)):
                await flight.ended.wait()
        except TimeoutError:
            raise DeadlineExceeded from None
        waited_ms = (time.monotonic() - started) * 1e3
        inference_ms = min(waited_ms, flight.timings.inference_ms)
        call.timings.inference_ms += inference_ms
        call.timings.queue_ms += waited_ms - inference_ms

    def _weigh(self, flight: _Flight, answer: _Answer) -> None:
        """Raises a flight's error when it is this call's own: again, and of texts that are all its own."""
        if flight.error and not set(flight.texts).difference(answer.texts):
            answer.failures += 1
            if answer.failures >= _SHARED_FAILURES:
                raise flight.error


def _texts(tokenized: Tokenized) -> list[bytes]:
    """Returns each text as the bytes of its token ids."""
    data = tokenized.token_ids.tobytes()
    width = tokenized.token_ids.itemsize
    return [data[start * width : end * width] for start, end in pairwise(tokenized.offsets.tolist())]
