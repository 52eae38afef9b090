"""Seconds that importing a client takes, each in a process of its own, in turns."""

from __future__ import annotations

import statistics
import subprocess
import sys
from collections.abc import Sequence

STATEMENTS = (
    "import grpc, google.protobuf.message, numpy",
    "import polarvec",
    "import openai",
    "import tritonclient.grpc, tokenizers, numpy",
)
_CODE = "import time; started = time.perf_counter(); {}; print(time.perf_counter() - started)"


def import_seconds(rounds: int, core: int) -> dict[str, float]:
    """Returns the median of each statement on one core; the first, unmeasured, round fills the disk's cache."""
    taken: dict[str, list[float]] = {statement: [] for statement in STATEMENTS}
    for number in range(rounds + 1):
        for statement, seconds in taken.items():
            measured = _once(["taskset", "-c", str(core), sys.executable, "-c", _CODE.format(statement)])
            if number:
                seconds.append(measured)
    return {statement: statistics.median(seconds) for statement, seconds in taken.items()}


def _once(command: Sequence[str]) -> float:
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
