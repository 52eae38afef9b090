"""What one run measures, how often and for how long; and what a part gives back."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

Row = dict[str, Any]
# The rows of each table that a part fills, by the table's name in part_tables.py.
Tables = Mapping[str, list[Row]]


@dataclass(frozen=True, slots=True)
class Measurement:
    """The choices of one run."""

    model: str
    """Its tokenizer is what the engine null is measured with; parts with a real engine run it."""
    rounds: int
    """Turns of each row; what stands in the tables is the median."""
    seconds: float
    """Of one turn."""
    callers: tuple[int, ...]
    """Counts of callers of the part `cost`."""
    single_calls: int
    """Calls of the part `profile` that are made one at a time."""


class Failure(Exception):
    """Why a run cannot go on; the text is for its user."""


def medians(turns: Iterable[Mapping[str, float]]) -> dict[str, float]:
    """Returns the median of each number that the turns of a row have."""
    kept = list(turns)
    return {name: statistics.median(turn[name] for turn in kept) for name in kept[0]}
