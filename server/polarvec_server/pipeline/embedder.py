"""The pipeline of one model: from texts to vectors, stage by stage, as in docs/architecture.md."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from polarvec_server.errors import EmptyText, NoTexts, Overloaded, TextTooLong, TooManyTexts
from polarvec_server.pipeline import packing, postprocess, prompts
from polarvec_server.pipeline.admission import Admission, Ticket, estimate_tokens
from polarvec_server.pipeline.dispatch import Dispatcher
from polarvec_server.pipeline.tokenizer import Tokenizer
from polarvec_server.pipeline.values import Priority, TextOptions, Timings, Tokenized, VectorOptions

# Below this many characters a hop to another thread costs more than the tokenizer itself (about 0.1 ms).
_INLINE_CHARACTERS = 1000
_COUNTING_CALLS = 4
_COUNTING_DELAY_S = 0.5


@dataclass(frozen=True, slots=True)
class CallLimits:
    """What one call may hold."""

    max_texts: int
    max_call_tokens: int
    max_request_bytes: int
    max_text_bytes: int


@dataclass(frozen=True, slots=True)
class Embedded:
    """Vectors of one call: (N, d) float32, and what became of the texts on the way."""

    vectors: NDArray[np.float32]
    tokenized: Tokenized


@dataclass(frozen=True, slots=True)
class Schedule:
    """When and how a call is computed."""

    priority: Priority
    # On the clock of time.monotonic, None for none.
    deadline: float | None
    # Streams wait for room, other calls are refused.
    wait_for_room: bool = False
    timings: Timings = field(default_factory=Timings)

    @property
    def time_left_s(self) -> float | None:
        """Seconds to the deadline."""
        return None if self.deadline is None else self.deadline - time.monotonic()


class Embedder:
    """Embeds texts with one model."""

    def __init__(
        self,
        *,
        dimensions: int,
        model_prompts: Mapping[str, str],
        limits: CallLimits,
        pack_tokens: int,
        tokenizer: Tokenizer,
        admission: Admission,
        dispatcher: Dispatcher,
        executor: Executor,
    ) -> None:
        self.dimensions = dimensions
        self.limits = limits
        self.max_tokens = tokenizer.max_tokens
        self._prompts = model_prompts
        self._pack_tokens = pack_tokens
        self._tokenizer = tokenizer
        self._admission = admission
        self._dispatcher = dispatcher
        self._executor = executor
        self._counting = 0

    async def embed(
        self, texts: Sequence[str], text_options: TextOptions, vector_options: VectorOptions, schedule: Schedule
    ) -> Embedded:
        """Embeds texts, all or none.

        Raises:
            RequestError: What the error table of docs/api.md lists for Embed.
        """
        (embedded,) = await self.embed_together([(texts, text_options)], vector_options, schedule)
        return embedded

    async def embed_together(
        self,
        groups: Sequence[tuple[Sequence[str], TextOptions]],
        vector_options: VectorOptions,
        schedule: Schedule,
    ) -> list[Embedded]:
        """Embeds several lists of texts as one call: admitted, scheduled and failed together. Raises as `embed`."""
        dimensions = postprocess.check_dimensions(vector_options.dimensions, self.dimensions)
        prefixes = [self._check(texts, options) for texts, options in groups]
        estimate = sum(
            estimate_tokens(texts, prompt, self.max_tokens) for (texts, _), prompt in zip(groups, prefixes, strict=True)
        )
        with await self._admit(estimate, schedule) as ticket:
            tokenized = [
                await self._tokenize(texts, prompt, options, schedule.timings)
                for (texts, options), prompt in zip(groups, prefixes, strict=True)
            ]
            token_count = sum(int(group.offsets[-1]) for group in tokenized)
            if token_count > self.limits.max_call_tokens:
                raise TooManyTexts("token", token_count, self.limits.max_call_tokens, groups[-1][1].field)
            ticket.settle(token_count)
            starts = np.cumsum([0, *(len(texts) for texts, _ in groups)])
            packs = [
                pack
                for group, start in zip(tokenized, starts[:-1], strict=True)
                for pack in packing.make_packs(group, self._pack_tokens, int(start))
            ]
            results = await self._dispatcher.run(packs, schedule.priority, schedule.deadline, schedule.timings)
        pooled = np.empty((int(starts[-1]), self.dimensions), np.float32)
        for pack, vectors in results:
            pooled[pack.rows] = vectors
        options = VectorOptions(dimensions, vector_options.unnormalized, vector_options.encoding)
        shaped = np.split(postprocess.shape_vectors(pooled, options), starts[1:-1])
        return [Embedded(vectors, group) for vectors, group in zip(shaped, tokenized, strict=True)]

    async def tokenize(self, texts: Sequence[str], options: TextOptions) -> Tokenized:
        """Counts tokens; texts may be empty, and too long ones are cut as `options` say."""
        prompt = self._check(texts, options, allow_empty=True)
        # No tokens of the encoder's are at stake, only threads; callers that embed must find one free.
        if self._counting >= _COUNTING_CALLS:
            raise Overloaded(_COUNTING_DELAY_S)
        self._counting += 1
        try:
            return await self._tokenize(texts, prompt, options, Timings())
        finally:
            self._counting -= 1

    def _check(self, texts: Sequence[str], options: TextOptions, *, allow_empty: bool = False) -> str:
        """Refuses what needs no tokenizer to be refused, and returns the prompt."""
        if not texts:
            raise NoTexts(options.field)
        if len(texts) > self.limits.max_texts:
            raise TooManyTexts("text", len(texts), self.limits.max_texts, options.field)
        for index, text in enumerate(texts):
            if not allow_empty and (not text or text.isspace()):
                raise EmptyText(options.field, index)
            # A character has at most four bytes, so most texts need not be encoded to be measured.
            if len(text) * 4 > self.limits.max_text_bytes:
                byte_count = len(text.encode())
                if byte_count > self.limits.max_text_bytes:
                    raise TextTooLong(options.field, index, "byte", byte_count, self.limits.max_text_bytes)
        return prompts.choose_prompt(self._prompts, options)

    async def _admit(self, tokens: int, schedule: Schedule) -> Ticket:
        if schedule.wait_for_room:
            return await self._admission.wait_for_room(tokens)
        return self._admission.admit(tokens, schedule.priority, schedule.time_left_s)

    async def _tokenize(self, texts: Sequence[str], prompt: str, options: TextOptions, timings: Timings) -> Tokenized:
        started = time.monotonic()
        if sum(map(len, texts)) + len(prompt) * len(texts) < _INLINE_CHARACTERS:
            tokenized = self._tokenizer.tokenize(texts, prompt, options)
        else:
            loop = asyncio.get_running_loop()
            tokenized = await loop.run_in_executor(self._executor, self._tokenizer.tokenize, texts, prompt, options)
        timings.tokenize_ms += (time.monotonic() - started) * 1e3
        return tokenized
