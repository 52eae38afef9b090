"""Cuts the texts of a call into packs, the unit that travels to Triton."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from polarvec_server.pipeline.values import Pack, Tokenized


def make_packs(tokenized: Tokenized, pack_tokens: int) -> list[Pack]:
    """Groups texts of similar length into packs of at most `pack_tokens` tokens; a longer text goes alone.

    Several packs are sorted by length, so that each holds texts of similar length; short texts come first, so that they
    are answered first.
    """
    lengths = tokenized.lengths
    if int(tokenized.offsets[-1]) <= pack_tokens:
        # One pack for all, as most calls are: the encoder sorts what is in a pack, and answers it as a whole.
        return [Pack(tokenized.token_ids, lengths.astype(np.int32), np.arange(lengths.size))]
    order = np.argsort(lengths, kind="stable")
    packs: list[Pack] = []
    start, total = 0, 0
    for position, row in enumerate(order):
        length = int(lengths[row])
        if total and total + length > pack_tokens:
            packs.append(_pack(tokenized, order[start:position]))
            start, total = position, 0
        total += length
    packs.append(_pack(tokenized, order[start:]))
    return packs


def _pack(tokenized: Tokenized, rows: NDArray[np.int64]) -> Pack:
    pieces = [tokenized.token_ids[tokenized.offsets[row] : tokenized.offsets[row + 1]] for row in rows]
    return Pack(np.concatenate(pieces), tokenized.lengths[rows].astype(np.int32), rows)
