"""What was measured, second by second and kind by kind, in a form that several processes can add up."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

BUCKET_RATIO = 1.02
"""Neighbouring buckets of a latency: a percentile is right to 1 %."""
COUNTS = ("offered", "right", "good", "wrong", "failed", "dropped", "finished", "ended_within", "texts", "tokens")
UNANSWERED = ("wrong", "failed", "dropped")


def bucket(milliseconds: float) -> int:
    """The bucket of a latency; everything up to 0.01 ms is in one."""
    return round(math.log(max(milliseconds, 0.01)) / math.log(BUCKET_RATIO))


def percentile(latencies: Counter[int], share: float, unanswered: int = 0) -> float | None:
    """Milliseconds that `share` (0 to 1) of the calls do not exceed.

    Args:
        latencies: Of the calls with a right answer.
        share: 0.99 for p99.
        unanswered: Calls without one; they are later than any other.

    Returns:
        None where the percentile falls on a call without a right answer, and where there are no calls.
    """
    wanted, seen = share * (latencies.total() + unanswered), 0
    for number in sorted(latencies):
        seen += latencies[number]
        if seen >= wanted:
            return BUCKET_RATIO**number
    return None


def mean(latencies: Counter[int]) -> float | None:
    """Their mean in milliseconds; None if there are none."""
    total = sum(BUCKET_RATIO**number * count for number, count in latencies.items())
    return total / latencies.total() if latencies else None


@dataclass(slots=True)
class Cell:
    """One kind in one second of the run.

    `finished` calls ended with a right answer in this second; everything else is of calls that were due in it:
    `right` ones got the right vectors, `good` ones did so in time, `ended_within` ones before their phase was over.
    """

    counts: Counter[str] = field(default_factory=Counter)
    latencies: Counter[int] = field(default_factory=Counter)

    @property
    def unanswered(self) -> int:
        """Calls without a right answer."""
        return sum(self.counts[name] for name in UNANSWERED)

    def add(self, other: Cell) -> None:
        """Takes in what another process, or another second, counted."""
        self.counts.update(other.counts)
        self.latencies.update(other.latencies)


@dataclass(slots=True)
class Samples:
    """Cells by second and kind, stages by phase and kind, errors by phase and kind."""

    cells: dict[tuple[int, str], Cell] = field(default_factory=dict)
    stages: dict[tuple[int, str, str], Counter[int]] = field(default_factory=dict)
    """By phase, kind and stage: queue, tokenize and inference by the server, dispatch by us."""
    errors: Counter[tuple[int, str, str]] = field(default_factory=Counter)
    cpu_s: Counter[int] = field(default_factory=Counter)
    """By phase: CPU seconds of the processes that made the load."""

    def cell(self, second: int, kind: str) -> Cell:
        """The cell of a second."""
        return self.cells.setdefault((second, kind), Cell())

    def stage(self, phase: int, kind: str, stage: str, milliseconds: float) -> None:
        """Counts one time."""
        self.stages.setdefault((phase, kind, stage), Counter())[bucket(milliseconds)] += 1

    def merge(self, other: Samples) -> None:
        """Takes in what another process counted."""
        for key, cell in other.cells.items():
            self.cells.setdefault(key, Cell()).add(cell)
        for stage_key, times in other.stages.items():
            self.stages.setdefault(stage_key, Counter()).update(times)
        self.errors.update(other.errors)
        for phase, seconds in other.cpu_s.items():
            self.cpu_s[phase] += seconds

    def drain(self) -> dict[str, Any]:
        """Everything since the last time, as plain lists that a message or a file can carry."""
        plain = {
            "cells": [[*key, dict(cell.counts), sorted(cell.latencies.items())] for key, cell in self.cells.items()],
            "stages": [[*key, sorted(times.items())] for key, times in self.stages.items()],
            "errors": [[*key, count] for key, count in self.errors.items()],
            "cpu_s": list(self.cpu_s.items()),
        }
        self.cells, self.stages, self.errors, self.cpu_s = {}, {}, Counter(), Counter()
        return plain

    @classmethod
    def from_plain(cls, plain: dict[str, Any]) -> Samples:
        """Reads what `drain` gave."""
        samples = cls()
        for second, kind, counts, latencies in plain["cells"]:
            samples.cells[second, kind] = Cell(Counter(counts), _counter(latencies))
        for phase, kind, stage, times in plain["stages"]:
            samples.stages[phase, kind, stage] = _counter(times)
        samples.errors.update({(phase, kind, name): count for phase, kind, name, count in plain["errors"]})
        samples.cpu_s.update(dict(map(tuple, plain["cpu_s"])))
        return samples

    @property
    def last_second(self) -> int:
        """The last second of the run of which anything is known; -1 if nothing is."""
        return max((second for second, _ in self.cells), default=-1)

    def between(self, start_s: float, end_s: float, kind: str | None = None) -> Cell:
        """Everything of the seconds from `start_s` to before `end_s`; of all kinds if none is named."""
        total = Cell()
        for (second, name), cell in self.cells.items():
            if start_s <= second < end_s and kind in (None, name):
                total.add(cell)
        return total


def _counter(pairs: Iterable[tuple[int, int]]) -> Counter[int]:
    return Counter({int(number): count for number, count in pairs})
