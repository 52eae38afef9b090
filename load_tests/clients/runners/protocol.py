"""What every runner does alike: takes a job on stdin, says hello with one text, embeds all of them, says what it cost.

Imports nothing but the standard library before the clock runs, so that a client's imports are its own.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

# (N,) texts to (N, D) float32, unit length.
Embed = Callable[[Sequence[str]], "np.ndarray"]


def run(connect: Callable[[dict], Embed]) -> None:
    """Measures one client.

    Args:
        connect: Imports the client, connects it and returns the function that embeds.
    """
    job = json.loads(sys.stdin.read())
    started, cpu_started = time.perf_counter(), time.process_time()
    embed = connect(job)
    embed(job["texts"][:1])
    first_s = time.perf_counter() - started
    first_cpu_s = time.process_time() - cpu_started
    # Not counted: connections, and whatever a client makes when it first sees a full batch.
    embed(job["texts"][: job["warm_up_texts"]])
    before_bytes = _peak_bytes()
    started, cpu_started = time.perf_counter(), time.process_time()
    vectors = embed(job["texts"])
    result = {
        "wall_s": time.perf_counter() - started,
        "cpu_s": time.process_time() - cpu_started,
        "peak_bytes": _peak_bytes(),
        "start_peak_bytes": before_bytes,
        "first_s": first_s,
        "first_cpu_s": first_cpu_s,
        "shape": list(vectors.shape),
        "dtype": str(vectors.dtype),
    }
    import numpy as np

    np.save(job["vectors_file"], vectors[:: job["sample_step"]])
    sys.stdout.write(json.dumps(result) + "\n")


def batches(texts: Sequence[str], size: int) -> list[Sequence[str]]:
    """Cuts the texts into calls, for clients that do not do it themselves."""
    return [texts[start : start + size] for start in range(0, len(texts), size)]


def _peak_bytes() -> int:
    # VmHWM, not ru_maxrss: that one starts with the parent's.
    with open("/proc/self/status", encoding="ascii") as lines:
        for line in lines:
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
