"""How a batch is cut into passes, and the few sizes that passes have: total tokens is the only thing they differ in."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

TILE = 128
"""Every pass is a multiple of this many tokens."""
TOKENS_PER_TEXT = 8
"""A pass of T tokens holds at most T / 8 texts: the last layer's single rows then cost an eighth of a layer at most."""

# Steps between sizes up to a size: from 1,024 tokens on at most a fifth of a pass is padding, a full pass has next to
# none.
_STEPS = ((1024, 128), (2048, 256), (4096, 512), (1 << 30, 1024))
# Sizes whose products fill 132 multiprocessors in whole waves of 128 x 256 tiles.
_WAVES = (4224, 8448, 16896)


@dataclass(frozen=True, slots=True)
class Span:
    """Texts `first` to `last` (exclusive) of a batch, run as one pass."""

    first: int
    last: int
    tokens: int
    """Size of the pass, padding included."""


def pass_sizes(largest: int) -> tuple[int, ...]:
    """List the sizes up to `largest`, which is one of them, ascending; all are multiples of `TILE`."""
    sizes = {wave for wave in _WAVES if wave <= largest} | {round_up(largest)}
    size = 0
    for limit, step in _STEPS:
        while size < min(limit, largest):
            size += step
            if size <= largest:
                sizes.add(size)
    return tuple(sorted(sizes))


def plan_passes(lengths: NDArray[np.int32], sizes: Sequence[int]) -> Iterator[Span]:
    """Cut a batch, in order, into passes as full as the largest size allows.

    Args:
        lengths: (N,) tokens of each text; one longer than the largest size gets a pass of its own, rounded up to tiles.
        sizes: As from `pass_sizes`.
    """
    largest = sizes[-1]
    ends = np.cumsum(lengths, dtype=np.int64)
    first = 0
    while first < lengths.size:
        before = int(ends[first] - lengths[first])
        last = int(np.searchsorted(ends, before + largest, side="right"))
        last = min(max(last, first + 1), first + largest // TOKENS_PER_TEXT)
        needed = max(int(ends[last - 1]) - before, (last - first) * TOKENS_PER_TEXT)
        yield Span(first, last, next((size for size in sizes if size >= needed), round_up(needed)))
        first = last


def round_up(tokens: int) -> int:
    """Round up to whole tiles."""
    return -(-tokens // TILE) * TILE
