"""CPU time of processes and of their threads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import psutil


class Meter:
    """CPU seconds of processes since it was made, in steps of 10 ms a process."""

    def __init__(self, processes: Sequence[psutil.Process]) -> None:
        self._processes = processes
        self._before = self._now()

    def _now(self) -> float:
        return sum(sum(process.cpu_times()[:2]) for process in self._processes)

    @property
    def seconds(self) -> float:
        """User and system time."""
        return self._now() - self._before

    def ms_a_call(self, loop: Mapping[str, Any]) -> float:
        """CPU milliseconds for each call of a closed loop that has just ended."""
        return self.seconds / loop["calls"] * 1e3


class ThreadMeter:
    """CPU seconds of each thread of one process since it was made; a thread that starts later counts from its start."""

    def __init__(self, process: psutil.Process) -> None:
        self._process = process
        self._before = self._now()

    def _now(self) -> dict[int, float]:
        return {thread.id: thread.user_time + thread.system_time for thread in self._process.threads()}

    @property
    def seconds(self) -> dict[int, float]:
        """User and system time by the thread's number in the kernel."""
        return {thread: now - self._before.get(thread, 0.0) for thread, now in self._now().items()}
