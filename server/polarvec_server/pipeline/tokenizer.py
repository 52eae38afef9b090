"""Turns prefixed texts into token ids, cut or refused at the model's limit."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer as RustTokenizer

from polarvec_server.errors import ConfigError, TextTooLong
from polarvec_server.pipeline.values import TextOptions, Tokenized, Truncation


class Tokenizer:
    """The tokenizer of one model; safe in several threads, and it releases the GIL while it works."""

    def __init__(self, tokenizer_file: Path, max_tokens: int) -> None:
        try:
            self._tokenizer = RustTokenizer.from_file(str(tokenizer_file))
        except Exception as error:
            raise ConfigError(f"{tokenizer_file} is not a tokenizer that the package tokenizers reads.") from error
        # The folder's own padding and truncation are for other callers; lengths are ours to rule.
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        self.max_tokens = max_tokens
        self._head, self._tail = self._special_tokens()

    def _special_tokens(self) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        """Finds the special tokens that go before and after every text."""
        encoding = self._tokenizer.encode("a")
        ids, special = np.array(encoding.ids, np.int32), np.array(encoding.special_tokens_mask, bool)
        content = np.flatnonzero(~special)
        if content.size == 0:
            raise ConfigError("The model's tokenizer makes no token out of the letter a.")
        return ids[: content[0]], ids[content[-1] + 1 :]

    def tokenize(self, texts: Sequence[str], prompt: str, options: TextOptions) -> Tokenized:
        """Tokenizes texts behind a prompt.

        Returns:
            The token ids, special tokens included; no text has more than `max_tokens`.

        Raises:
            TextTooLong: A text has more tokens than the model reads, and no truncation was asked for.
        """
        prefixed = [prompt + text for text in texts] if prompt else list(texts)
        ids = [encoding.ids for encoding in self._tokenizer.encode_batch_fast(prefixed)]
        full_counts = np.fromiter(map(len, ids), np.int64, len(ids))
        too_long = np.flatnonzero(full_counts > self.max_tokens)
        prompt_tokens = self._count_prompt(prompt) if too_long.size else 0
        for index in too_long:
            if options.truncation is Truncation.REFUSE:
                raise TextTooLong(options.field, int(index), "token", int(full_counts[index]), self.max_tokens)
            ids[index] = self._cut(ids[index], prompt_tokens, options.truncation)
        offsets = np.zeros(len(ids) + 1, np.int64)
        np.cumsum(np.fromiter(map(len, ids), np.int64, len(ids)), out=offsets[1:])
        token_ids = np.fromiter(chain.from_iterable(ids), np.int32, int(offsets[-1]))
        return Tokenized(token_ids, offsets, full_counts)

    def _count_prompt(self, prompt: str) -> int:
        """Counts the tokens that are the prompt's alone: its last blank belongs to the text's first token."""
        return len(self._tokenizer.encode(prompt.rstrip(), add_special_tokens=False).ids) if prompt.strip() else 0

    def _cut(self, ids: list[int], prompt_tokens: int, truncation: Truncation) -> list[int]:
        """Cuts one text to the limit; the special tokens stay, and the prompt too when the start is cut."""
        content = ids[len(self._head) : len(ids) - len(self._tail)]
        room = self.max_tokens - len(self._head) - len(self._tail)
        if truncation is Truncation.END:
            kept = content[:room]
        else:
            keep_prompt = min(prompt_tokens, room)
            kept = content[:keep_prompt] + content[len(content) - (room - keep_prompt) :]
        return [*self._head.tolist(), *kept, *self._tail.tolist()]
