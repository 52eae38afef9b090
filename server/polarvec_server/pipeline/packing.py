"""Cuts the texts of a call into packs, the unit that travels to Triton."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from polarvec_server.pipeline.values import Pack, Tokenized


def make_packs(tokenized: Tokenized, pack_tokens: int, first_row: int = 0) -> list[Pack]:
    """Groups texts of similar length into packs of at most `pack_tokens` tokens; a longer text goes alone.

    Sorted by length, because an engine that pads inside a pack then pads least; short texts come first, so that they
    are answered first. The rows of the packs count from `first_row`.
    """
    lengths = tokenized.lengths
    if int(tokenized.offsets[-1]) <= pack_tokens:
        # One pack for all, as most calls are: nothing to sort but the rows.
        if lengths.size == 1:
            return [Pack(tokenized.token_ids, lengths.astype(np.int32), np.array([first_row]))]
    order = np.argsort(lengths, kind="stable")
    packs: list[Pack] = []
    start, total = 0, 0
    for position, row in enumerate(order):
        length = int(lengths[row])
        if total and total + length > pack_tokens:
            packs.append(_pack(tokenized, order[start:position], first_row))
            start, total = position, 0
        total += length
    packs.append(_pack(tokenized, order[start:], first_row))
    return packs


def _pack(tokenized: Tokenized, rows: NDArray[np.int64], first_row: int) -> Pack:
    pieces = [tokenized.token_ids[tokenized.offsets[row] : tokenized.offsets[row + 1]] for row in rows]
    return Pack(np.concatenate(pieces), tokenized.lengths[rows].astype(np.int32), rows + first_row)
