"""What this machine offers the encoder: instruction sets, and the cores that the container and the scheduler allow."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Hardware:
    """The CPU as this process may use it."""

    threads: int
    """Cores allowed: the smaller of the affinity mask and the cgroup's limit, rounded up, at least 1."""
    flags: frozenset[str]
    """Instruction sets, named as in /proc/cpuinfo."""

    @property
    def bf16(self) -> str:
        """The instruction set that multiplies bfloat16, or "" where there is none."""
        return next((flag for flag in ("amx_bf16", "avx512_bf16") if flag in self.flags), "")

    @property
    def int8(self) -> str:
        """The instruction set that multiplies 8-bit integers, or "" where there is none."""
        return next((flag for flag in ("amx_int8", "avx512_vnni", "avx_vnni") if flag in self.flags), "")


def read_hardware(root: Path = Path("/")) -> Hardware:
    """Look at the machine; `root` is where proc and sys are mounted."""
    affinity = len(os.sched_getaffinity(0))
    limit = min((quota for quota in _quotas(root)), default=math.inf)
    return Hardware(threads=max(1, min(affinity, math.ceil(min(limit, affinity)))), flags=_flags(root))


def _flags(root: Path) -> frozenset[str]:
    try:
        lines = (root / "proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return frozenset()
    return next((frozenset(line.partition(":")[2].split()) for line in lines if line.startswith("flags")), frozenset())


def _quotas(root: Path) -> Iterator[float]:
    """Yield every CPU limit, in cores, on the way from this process's cgroup to the top; v1 and v2."""
    base = root / "sys/fs/cgroup"
    for controllers, path in _cgroups(root):
        if controllers == "":
            for folder in _upwards(base, path):
                yield from _read_v2(folder / "cpu.max")
        elif "cpu" in controllers.split(","):
            for folder in _upwards(base / controllers, path):
                yield from _read_v1(folder)
            for folder in _upwards(base / "cpu", path):
                yield from _read_v1(folder)


def _cgroups(root: Path) -> Iterator[tuple[str, str]]:
    try:
        lines = (root / "proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        yield controllers, path.strip("/")


def _upwards(base: Path, path: str) -> Iterator[Path]:
    # In a container the path may be the host's; what is mounted is then the base alone, which always comes last.
    parts = [part for part in path.split("/") if part and part != ".."]
    for length in range(len(parts), -1, -1):
        yield base.joinpath(*parts[:length])


def _read_v2(path: Path) -> Iterator[float]:
    try:
        quota, period = path.read_text(encoding="utf-8").split()
        if quota != "max":
            yield int(quota) / int(period)
    except (OSError, ValueError):
        return


def _read_v1(folder: Path) -> Iterator[float]:
    try:
        quota = int((folder / "cpu.cfs_quota_us").read_text(encoding="utf-8"))
        if quota > 0:
            yield quota / int((folder / "cpu.cfs_period_us").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return
