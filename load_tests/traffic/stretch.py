"""Phases that follow each other on the clock: one stretch of load, in which no answer delays the next phase."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from traffic.arrivals import Phase, arrivals


@dataclass(frozen=True, slots=True)
class Order:
    """One phase as a process is to offer it."""

    phase: Phase
    start_s: int
    """The second of the run at which it begins."""
    began_s: float
    """The same on this process's monotonic clock."""

    @property
    def ends_s(self) -> float:
        """When it is over on this process's monotonic clock."""
        return self.began_s + self.phase.seconds

    def due_second(self, due_s: float) -> int:
        """The second of the run, and of this phase, that an arrival of it counts in."""
        within = math.floor(due_s - self.began_s)
        return self.start_s + min(max(0, within), math.ceil(self.phase.seconds) - 1)

    def end_second(self, ended_s: float) -> int:
        """The second of the run in which an answer came; it may lie in a later phase."""
        return self.start_s + math.floor(ended_s - self.began_s)


Arrival = tuple[Order, int, float]
"""The phase that it belongs to, its number there and when it is due (monotonic seconds)."""


def orders(phases: Sequence[Phase], start_s: int, began_s: float) -> list[Order]:
    """Each phase begins when the one before is over, whatever is still open.

    Args:
        phases: All but the last take whole seconds, so that a second belongs to one phase.
        start_s: The second of the run at which the first begins.
        began_s: The same on this process's monotonic clock.
    """
    result, before_s = [], 0
    for phase in phases:
        result.append(Order(phase, start_s + before_s, began_s + before_s))
        before_s += math.ceil(phase.seconds)
    return result


def schedule(stretch: Sequence[Order], process: str, seed: int, share: int, shares: int) -> Iterator[Arrival]:
    """A share of the arrivals of all phases, in order; see `arrivals`."""
    for order in stretch:
        for number, offset_s in arrivals(order.phase, process, seed, share=share, shares=shares):
            yield order, number, order.began_s + offset_s
