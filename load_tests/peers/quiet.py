"""How much of the machine somebody else used while something was timed: on a shared machine the timing may be void."""

from __future__ import annotations

import time
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import psutil
from peer_process import PeerProcess


@dataclass(slots=True)
class Slot:
    """One timed stretch, as a context manager; the fields are set when it ends."""

    peer: PeerProcess
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    """CPU time of the peer's process tree."""
    others: float = 0.0
    """Share of the machine's cores that others used or that the hypervisor took away, 0 to 1."""
    _started: float = 0.0
    _busy: float = 0.0
    _cpu: float = 0.0

    def __enter__(self) -> Self:
        self._started, self._busy, self._cpu = time.perf_counter(), _busy_seconds(), self.peer.cpu_seconds()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.seconds = time.perf_counter() - self._started
        self.cpu_seconds = self.peer.cpu_seconds() - self._cpu
        other = _busy_seconds() - self._busy - self.cpu_seconds
        self.others = max(0.0, other / (self.seconds * psutil.cpu_count()))


def _busy_seconds() -> float:
    times = psutil.cpu_times()
    return sum(times) - times.idle - times.iowait - getattr(times, "guest", 0.0) - getattr(times, "guest_nice", 0.0)
