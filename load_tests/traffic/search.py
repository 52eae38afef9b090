"""Looks for saturation: the highest arrival rate that keeps the limits, by doubling, then by halving the ratio."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from traffic.arrivals import Phase
from traffic.shapes import PhaseOutcome, Shape, ShapeOptions

_MAX_STEPS = 16
_LOWEST_RATE = 0.1


@dataclass(slots=True)
class Search:
    """A shape with a memory."""

    problems_of: Callable[[PhaseOutcome], list[str]]
    """What is wrong with a phase; nothing if it kept the limits."""
    precision: float = 1.1
    """It ends when the lowest rate that failed is at most this many times the highest that passed."""
    passed: float | None = None
    failed: float | None = None
    because: list[str] = field(default_factory=list)
    """Why the lowest rate that failed did."""
    ended: bool = False

    def phases(self, options: ShapeOptions) -> Shape:
        """One phase a rate; the next rate depends on how the last one went."""
        rate = options.rate
        for number in range(_MAX_STEPS):
            (outcome,) = yield (Phase(f"{rate:.3g}/s", number, options.step_seconds, rate, rate, judged=False),)
            if problems := self.problems_of(outcome):
                self.failed, self.because = rate, problems
            else:
                self.passed = rate
            if self.passed and self.failed and self.failed / self.passed <= self.precision:
                break
            rate = self._next(options.max_rate)
            if rate is None:
                break
        self.ended = True

    def _next(self, highest: float) -> float | None:
        if self.passed is None:
            return self.failed / 2 if self.failed / 2 >= _LOWEST_RATE else None
        if self.failed is None:
            return min(highest, self.passed * 2) if self.passed < highest else None
        return math.sqrt(self.passed * self.failed)

    def result(self) -> dict[str, Any]:
        """What was found, and in words."""
        return {"passed_rate": self.passed, "failed_rate": self.failed, "because": self.because, "says": self._says()}

    def _says(self) -> str:
        if not self.ended:
            return "The search was stopped before it ended."
        if self.passed is None:
            return f"No rate kept the limits: at {self.failed:.3g} calls/s {'; '.join(self.because)}."
        if self.failed is None:
            return f"Every rate up to {self.passed:.3g} calls/s kept the limits; the search went no higher."
        return (
            f"Saturation: {self.passed:.3g} calls/s is the highest rate that kept the limits; "
            f"at {self.failed:.3g} calls/s {'; '.join(self.because)}."
        )
