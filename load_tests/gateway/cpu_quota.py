"""Holds processes to a part of a core each, so that a machine of few cores can show what more of them would do."""

from __future__ import annotations

import contextlib
import os
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil

_PERIOD_US = 20_000
# The kernel's two interfaces: https://docs.kernel.org/scheduler/sched-bwc.html, https://docs.kernel.org/admin-guide/cgroup-v2.html
_V1, _V2 = Path("/sys/fs/cgroup/cpu"), Path("/sys/fs/cgroup")


def quotas_can_be_set() -> bool:
    """Whether this user may hold processes to a part of a core: usually root, with the cgroup file system mounted."""
    try:
        with CpuQuota([], 0.5):
            return True
    except OSError:
        return False


class CpuQuota:
    """A quota of its own for each of some processes; a context manager, at whose end the processes must be gone."""

    def __init__(self, processes: Sequence[psutil.Process], cores: float) -> None:
        """Makes a group for each process, and one that shows that groups can be made.

        Args:
            processes: Each with all its threads.
            cores: CPU seconds a second of each.

        Raises:
            OSError: There are no such groups here, or this user may not make them.
        """
        self._groups: list[Path] = []
        try:
            self._hold(None, cores)
            for process in processes:
                self._hold(process, cores)
        except BaseException:
            self._remove()
            raise

    def _hold(self, process: psutil.Process | None, cores: float) -> None:
        quota_us = str(int(cores * _PERIOD_US))
        first_version = _V1.is_dir()
        group = Path(tempfile.mkdtemp(prefix=f"bench-gateway-{os.getpid()}-", dir=_V1 if first_version else _V2))
        self._groups.append(group)
        if first_version:
            (group / "cpu.cfs_period_us").write_text(str(_PERIOD_US))
            (group / "cpu.cfs_quota_us").write_text(quota_us)
        else:
            (group / "cpu.max").write_text(f"{quota_us} {_PERIOD_US}")
        if process:
            (group / "cgroup.procs").write_text(str(process.pid))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._remove()

    def _remove(self) -> None:
        ends = time.monotonic() + 5
        for group in self._groups:
            # A process that has just ended stays in its group for a moment.
            while group.exists() and time.monotonic() < ends:
                with contextlib.suppress(OSError):
                    group.rmdir()
                    break
                time.sleep(0.05)
