"""Leaves the repeats of a call's texts out before the tokenizer, and puts them back behind it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from polarvec_server.pipeline.values import TextOptions, Tokenized


@dataclass(frozen=True, slots=True)
class Distinct:
    """The texts of a list, each once; error messages, counts and vectors stay those of the whole list.

    `places` (N,) int64 says for each text of the list which one it is; None if all differ.
    """

    texts: Sequence[str]
    options: TextOptions
    places: NDArray[np.int64] | None = None

    @classmethod
    def of(cls, texts: Sequence[str], options: TextOptions) -> Distinct:
        """Finds the repeats of a list."""
        if len(texts) == 1 or len(set(texts)) == len(texts):
            return cls(texts, options)
        firsts: dict[str, int] = {}
        for index, text in enumerate(texts):
            firsts.setdefault(text, index)
        numbers = {text: number for number, text in enumerate(firsts)}
        places = np.array([numbers[text] for text in texts], np.int64)
        return cls(list(firsts), replace(options, places=tuple(firsts.values())), places)

    def count_tokens(self, tokenized: Tokenized) -> int:
        """Tokens of the whole list."""
        return int(tokenized.offsets[-1] if self.places is None else tokenized.lengths[self.places].sum())

    def expand(self, tokenized: Tokenized) -> Tokenized:
        """Returns the tokens of the whole list."""
        return tokenized if self.places is None else tokenized.take(self.places)
