"""When calls arrive: a schedule that knows nothing of the server, so that no answer can delay the next call."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class Phase:
    """A stretch of the run in which calls arrive at one rate, or at one that changes evenly."""

    name: str
    number: int
    """Its place in the run; a part of the seed."""
    seconds: float
    rate: float
    """Calls a second at its start."""
    end_rate: float
    """Calls a second at its end."""
    judged: bool = True
    """Whether limits hold in it; one that looks for the server's limit breaks them on purpose."""

    def until(self, seconds: float) -> Phase:
        """What there was of it when the run was stopped after so many seconds; no limit judges that."""
        end_rate = self.rate + (self.end_rate - self.rate) * seconds / self.seconds
        return replace(self, name=f"{self.name}, stopped", seconds=seconds, end_rate=end_rate, judged=False)

    @property
    def offered(self) -> float:
        """Calls expected in all."""
        return (self.rate + self.end_rate) / 2 * self.seconds


def arrivals(phase: Phase, process: str, seed: int, *, share: int = 0, shares: int = 1) -> Iterator[tuple[int, float]]:
    """The number of each arrival and the second in the phase at which it is due, in order.

    Arrivals of rate 1 are stretched by the inverse of the rate's integral, so any rate that changes has exact
    arrivals. Each share takes every `shares`-th one: together they are the same, however many there are.

    Args:
        phase: How many.
        process: "constant" (evenly spaced) or "poisson" (independent callers).
        seed: The same seed gives the same arrivals.
        share: Which share, from 0.
        shares: How many processes share the work.
    """
    generator = random.Random(f"{seed} {phase.number} arrivals")
    slope = (phase.end_rate - phase.rate) / phase.seconds
    work, number = 0.0, 0
    while True:
        work += generator.expovariate(1.0) if process == "poisson" else (0.5 if number == 0 else 1.0)
        if work > phase.offered:
            return
        root = math.sqrt(max(0.0, phase.rate**2 + 2 * slope * work))
        if number % shares == share:
            yield number, min(phase.seconds, 2 * work / (phase.rate + root))
        number += 1


def call_seed(seed: int, phase: Phase, number: int) -> random.Random:
    """The generator that decides what arrival `number` sends."""
    return random.Random(f"{seed} {phase.number} {number}")
