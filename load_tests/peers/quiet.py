"""How much of the machine somebody else used while something was timed: on a shared machine the timing may be void."""

from __future__ import annotations

import time
from collections.abc import Callable
from types import TracebackType
from typing import Protocol, Self, TypeVar

import psutil
from script_process import ScriptProcess

# Something is timed so often at most, and so long is waited for a quiet second.
_TRIES, _QUIET_S = 3, 60.0


class Timed(Protocol):
    """What was timed."""

    @property
    def others(self) -> float:
        """Share of the cores that somebody else had meanwhile."""


TimedT = TypeVar("TimedT", bound=Timed)


class Slot:
    """One timed stretch, as a context manager; the attributes are set when it ends."""

    def __init__(self, *ours: ScriptProcess) -> None:
        """Measures nothing yet.

        Args:
            ours: Process trees whose time is told apart; everybody else is `others`.
        """
        self._ours = ours
        self.seconds = 0.0
        self.cpu_seconds: list[float] = []
        """CPU time of each of the trees."""
        self.others = 0.0
        """Share of the machine's cores that others used or that the hypervisor took away, 0 to 1."""

    def __enter__(self) -> Self:
        self._started, self._busy, self._cpu = time.perf_counter(), _busy_seconds(), self._cpu_seconds()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.seconds = time.perf_counter() - self._started
        self.cpu_seconds = [now - before for now, before in zip(self._cpu_seconds(), self._cpu, strict=True)]
        other = _busy_seconds() - self._busy - sum(self.cpu_seconds)
        self.others = max(0.0, other / (self.seconds * psutil.cpu_count()))

    def _cpu_seconds(self) -> list[float]:
        return [process.cpu_seconds() for process in self._ours]


def quietest(take: Callable[[], TimedT], max_others: float, wait: Callable[[], None]) -> TimedT:
    """Times something, and after a wait again if others had more of the cores; the quietest of three at most."""
    taken = [take()]
    while len(taken) < _TRIES and taken[-1].others > max_others:
        wait()
        taken.append(take())
    return min(taken, key=lambda one: one.others)


def await_quiet(max_others: float, *ours: ScriptProcess) -> None:
    """Waits for a second in which others have no larger share of the cores, a minute at most."""
    until = time.monotonic() + _QUIET_S
    while time.monotonic() < until:
        with Slot(*ours) as slot:
            time.sleep(1.0)
        if slot.others <= max_others:
            return


def _busy_seconds() -> float:
    times = psutil.cpu_times()
    return sum(times) - times.idle - times.iowait - getattr(times, "guest", 0.0) - getattr(times, "guest_nice", 0.0)
