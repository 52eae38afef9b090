"""The cores that a server may use, and how the gateway's workers and a CPU engine share them.

The encoder reads the same files by itself (`polarvec_encoder/hardware.py`): neither package may import the other.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from polarvec_server.config import Settings

# Every worker holds a tokenizer of some 350 MB; more than these are a decision to take by hand.
_MOST_WORKERS = 8
# Cores of a CPU engine that one worker feeds with ease.
_CORES_A_WORKER = 8


def available_cores(root: Path = Path("/")) -> int:
    """Returns how many whole cores this process may use: by affinity, and by the container's CPU limit.

    Args:
        root: Where proc and sys are mounted.
    """
    affinity = len(os.sched_getaffinity(0))
    return max(1, int(min([affinity, *_limits(root)])))


def _limits(root: Path) -> Iterator[float]:
    """Yields every CPU limit, in cores, from this process's cgroup up to the root; v2 (no controllers) and v1."""
    try:
        lines = (root / "proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        # In a container the path may be the host's; then only the mount itself, which always comes last, is there.
        parts = [part for part in path.split("/") if part not in ("", "..")]
        for mount in (controllers, "cpu") if controllers else ("",):
            for depth in range(len(parts), -1, -1):
                yield _limit(root.joinpath("sys/fs/cgroup", mount, *parts[:depth]))


def _limit(folder: Path) -> float:
    """Reads one cgroup's limit; infinity if it has none."""
    try:
        quota, period = (folder / "cpu.max").read_text(encoding="utf-8").split()
    except (OSError, ValueError):
        try:
            quota, period = (
                (folder / f"cpu.cfs_{name}_us").read_text(encoding="utf-8") for name in ("quota", "period")
            )
        except OSError:
            return math.inf
    return math.inf if quota.strip() in ("max", "-1") else int(quota) / int(period)


@dataclass(frozen=True, slots=True)
class CoreShares:
    """How the cores of a machine are shared out."""

    workers: int
    """Gateway processes."""
    engine_threads: int
    """Threads of a CPU engine; 0 where there is none."""


def share_cores(settings: Settings, cores: int, engine: Literal["cpu", "gpu", "elsewhere"]) -> CoreShares:
    """Shares out the cores between the gateway's workers and a CPU engine, as far as the settings leave that open.

    Args:
        settings: `workers` and `engine_threads`; 0 is open.
        cores: Those that this server may use.
        engine: Whether the encoder computes on these cores, on a GPU of this machine, or somewhere else.
    """
    if engine != "cpu":
        # What feeds a GPU needs one core and a little.
        free = cores - 1 if engine == "gpu" else cores
        return CoreShares(settings.workers or min(_MOST_WORKERS, max(1, free)), 0)
    if settings.engine_threads:
        workers = settings.workers or min(_MOST_WORKERS, max(1, cores - settings.engine_threads))
        return CoreShares(workers, settings.engine_threads)
    workers = settings.workers or max(1, cores // _CORES_A_WORKER)
    # One of two cores would cost the engine half of its speed for a gateway that needs a tenth.
    return CoreShares(workers, cores if cores <= 2 else max(1, cores - workers))
