"""One number in two reports: its change, the interval that the change lies in, and what is made of it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

VERDICTS = ("worse", "better", "same", "unclear")
_BOOTSTRAPS = 400
# Some sixty rows are looked at: 5 % of them would be several in every comparison.
_INTERVAL = (0.5, 99.5)
Block = TypeVar("Block")


@dataclass(frozen=True, slots=True)
class ComparedRow:
    """One number of one phase, or of the run, in both reports."""

    name: str
    first: float
    second: float
    change: float
    """Second to first, turned so that more than 1 is worse; of shares, percentage points more."""
    low: float
    high: float
    """Between these the change lies in 99 % of the bootstraps; both are the change where nothing tells its noise."""
    verdict: str
    in_points: bool = False


def ratio_row(
    name: str,
    values: Sequence[float],
    interval: tuple[float, float] | None,
    tolerance: float,
    *,
    more_is_better: bool = False,
) -> ComparedRow:
    """A row of a number that may be anything above 0.

    Args:
        name: What it is.
        values: Before and after; one of them may be infinite.
        interval: Of the ratio; None if the run does not tell.
        tolerance: 0.1 calls it worse when the whole interval is over 1.1.
        more_is_better: Of a throughput.
    """
    ratio = ratio_of(values, more_is_better)
    low, high = interval or (ratio, ratio)
    return ComparedRow(name, values[0], values[1], ratio, low, high, ratio_verdict(low, high, tolerance))


def ratio_of(values: Sequence[float], more_is_better: bool) -> float:
    """How many times worse the second is."""
    better, worse = (values[1], values[0]) if more_is_better else values
    if better == worse:
        return 1.0
    return worse / better if better else math.inf


def ratio_verdict(low: float, high: float, tolerance: float) -> str:
    """What an interval of a ratio says."""
    return _verdict(low, high, 1 / (1 + tolerance), 1 + tolerance)


def points_verdict(low: float, high: float, points: float) -> str:
    """What an interval of a difference in percentage points says."""
    return _verdict(low, high, -points, points)


def bootstrapped(
    blocks: Sequence[Sequence[Block]],
    measure: Callable[[Sequence[Block]], float | None],
    change: Callable[[Sequence[float]], float],
    generator: np.random.Generator,
    *,
    paired: bool = False,
) -> tuple[float, float]:
    """The interval of a change when the stretches of both runs are drawn again.

    Args:
        blocks: Those of both runs.
        measure: What they come to; None if that cannot be told.
        change: Of both.
        generator: What draws.
        paired: The same stretches of both: the same arrivals, whose mix then is no noise of a number by work done.
    """
    drawn = []
    for _ in range(_BOOTSTRAPS):
        places = [generator.integers(len(stretches), size=len(stretches)) for stretches in blocks]
        if paired and len(blocks[0]) == len(blocks[1]):
            places[1] = places[0]
        again = [measure([stretches[p] for p in drawn_of]) for stretches, drawn_of in zip(blocks, places, strict=True)]
        known = [value for value in again if value is not None]
        if len(known) == 2:
            drawn.append(change(known))
    if not drawn:
        return -math.inf, math.inf
    # No interpolation, which has no answer between two infinities.
    low, high = np.percentile(drawn, _INTERVAL, method="nearest")
    return float(low), float(high)


def _verdict(low: float, high: float, lowest: float, highest: float) -> str:
    if low > highest:
        return "worse"
    if high < lowest:
        return "better"
    return "same" if low >= lowest and high <= highest else "unclear"
