"""The pipeline of one model: from texts to vectors, stage by stage, as in docs/architecture.md."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from functools import partial

import numpy as np
from numpy.typing import NDArray

from polarvec_server.pipeline import packing, postprocess, prompts
from polarvec_server.pipeline.admission import Admission, Ticket, estimate_tokens
from polarvec_server.pipeline.dispatch import Dispatcher
from polarvec_server.pipeline.distinct import Distinct
from polarvec_server.pipeline.limits import CallLimits
from polarvec_server.pipeline.repeats import Call, KnownVectors, Repeats
from polarvec_server.pipeline.threads import TokenizerThreads
from polarvec_server.pipeline.tokenizer import Tokenizer
from polarvec_server.pipeline.values import Priority, TextOptions, Timings, Tokenized, TokenPieces, VectorOptions


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
        known: KnownVectors | None = None,
    ) -> None:
        self.dimensions = dimensions
        self.limits = limits
        self.max_tokens = tokenizer.max_tokens
        self._prompts = model_prompts
        self.pack_tokens = pack_tokens
        self._tokenizer = tokenizer
        self._admission = admission
        self._dispatcher = dispatcher
        self.repeats = Repeats(self._encode, dimensions, pack_tokens, known)
        self._threads = TokenizerThreads(executor)

    @property
    def longest_text_count(self) -> int:
        """Interactive calls with a text of the longest kind that are let in at a time."""
        return max(1, self._admission.share_tokens(Priority.INTERACTIVE) // self.max_tokens)

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
        self._check_dimensions(vector_options)
        prefixes = [self.check(texts, options) for texts, options in groups]
        lists = [Distinct.of(texts, options) for texts, options in groups]
        estimate = sum(
            estimate_tokens(distinct.texts, prompt, self.max_tokens)
            for distinct, prompt in zip(lists, prefixes, strict=True)
        )
        with await self._admit(estimate, schedule) as ticket:
            found = [
                await self._tokenize(distinct.texts, prompt, distinct.options, schedule.timings)
                for distinct, prompt in zip(lists, prefixes, strict=True)
            ]
            token_count = sum(distinct.count_tokens(group) for distinct, group in zip(lists, found, strict=True))
            self.limits.check_tokens(token_count, groups[-1][1].field)
            tokenized = [distinct.expand(group) for distinct, group in zip(lists, found, strict=True)]
            return await self._compute(tokenized, vector_options, schedule, ticket)

    async def embed_token_ids(
        self,
        token_ids: Sequence[Sequence[int]],
        text_options: TextOptions,
        vector_options: VectorOptions,
        schedule: Schedule,
    ) -> Embedded:
        """Embeds texts that the caller has tokenized, prompt and special tokens included, as `tokenize` gives them.

        Raises:
            RequestError: As `embed`, and InvalidField for ids that are not this model's.
        """
        self._check_dimensions(vector_options)
        self.limits.check_count(len(token_ids), text_options.field)
        with await self._admit(sum(min(len(ids), self.max_tokens) for ids in token_ids), schedule) as ticket:
            tokenized = self._tokenizer.read_token_ids(token_ids, text_options)
            self.limits.check_tokens(int(tokenized.offsets[-1]), text_options.field)
            (embedded,) = await self._compute([tokenized], vector_options, schedule, ticket)
        return embedded

    async def _compute(
        self, groups: Sequence[Tokenized], vector_options: VectorOptions, schedule: Schedule, ticket: Ticket
    ) -> list[Embedded]:
        """Brings tokenized texts to their vectors, and the vectors into shape."""
        call = Call(schedule.priority, schedule.deadline, schedule.timings, ticket.settle)
        pooled = await self.repeats.embed(Tokenized.join(groups), call)
        vectors = postprocess.shape_vectors(pooled, vector_options)
        if len(groups) == 1:
            return [Embedded(vectors, groups[0])]
        starts = np.cumsum([len(group.full_counts) for group in groups[:-1]])
        return [Embedded(*pair) for pair in zip(np.split(vectors, starts), groups, strict=True)]

    async def _encode(
        self, tokenized: Tokenized, priority: Priority, deadline: float | None, timings: Timings
    ) -> NDArray[np.float32]:
        """Runs texts that nobody knows through the encoder; returns (N, D) float32 in their order."""
        packs = packing.make_packs(tokenized, self.pack_tokens)
        results = await self._dispatcher.run(packs, priority, deadline, timings)
        if len(results) == 1:
            # Its rows are the texts in their order.
            return results[0][1]
        pooled = np.empty((len(tokenized.full_counts), self.dimensions), np.float32)
        for pack, vectors in results:
            pooled[pack.rows] = vectors
        return pooled

    async def tokenize(self, texts: Sequence[str], options: TextOptions) -> Tokenized:
        """Counts tokens; texts may be empty, and too long ones are cut as `options` say."""
        prompt = self.check(texts, options, allow_empty=True)
        async with self._threads.counting(wait_for_room=False):
            return await self._tokenize(texts, prompt, options, Timings())

    async def split(
        self, text: str, options: TextOptions, *, special_tokens: bool, wait_for_room: bool = False
    ) -> TokenPieces:
        """Returns the tokens of prompt and text, uncut; raises as `tokenize`.

        Args:
            text: The text, which may be empty.
            options: Its prompt.
            special_tokens: Whether to add the tokens that the model puts around a text.
            wait_for_room: Waits for other calls of this kind where `tokenize` is refused.
        """
        prefixed = self.check([text], options, allow_empty=True) + text
        work = partial(self._tokenizer.split, prefixed, special_tokens=special_tokens)
        async with self._threads.counting(wait_for_room=wait_for_room):
            return await self._threads.run(work, len(prefixed))

    async def join(self, ids: Sequence[int], *, skip_special_tokens: bool, wait_for_room: bool = False) -> str:
        """Returns the text that tokens stand for.

        Raises:
            TooManyTexts: More ids than a call may have tokens.
            InvalidField: An id that the vocabulary does not have.
            Overloaded: As `tokenize`.
        """
        self.limits.check_tokens(len(ids), "ids")
        work = partial(self._tokenizer.join, list(ids), skip_special_tokens=skip_special_tokens)
        async with self._threads.counting(wait_for_room=wait_for_room):
            return await self._threads.run(work, len(ids))

    def _check_dimensions(self, options: VectorOptions) -> int:
        return postprocess.check_dimensions(options.dimensions, self.dimensions, options.dimensions_step)

    def check(self, texts: Sequence[str], options: TextOptions, *, allow_empty: bool = False) -> str:
        """Refuses what needs no tokenizer to be refused, and returns the prompt."""
        self.limits.check_texts(texts, options, allow_empty=allow_empty)
        return prompts.choose_prompt(self._prompts, options)

    async def _admit(self, tokens: int, schedule: Schedule) -> Ticket:
        if schedule.wait_for_room:
            return await self._admission.wait_for_room(tokens)
        return self._admission.admit(tokens, schedule.priority, schedule.time_left_s)

    async def _tokenize(self, texts: Sequence[str], prompt: str, options: TextOptions, timings: Timings) -> Tokenized:
        started = time.monotonic()
        work = partial(self._tokenizer.tokenize, texts, prompt, options)
        tokenized = await self._threads.run(work, sum(map(len, texts)) + len(prompt) * len(texts))
        timings.tokenize_ms += (time.monotonic() - started) * 1e3
        return tokenized
