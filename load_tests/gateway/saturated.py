"""Half of the part `profile`: CPU time of a saturated gateway worker by stage."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import psutil
from closed_loop import ClosedLoop, call
from measurement import Failure, Measurement, Row
from meter import ThreadMeter
from payloads import make_payloads
from servers import null_server, workers_of
from stages import STAGES, count_samples, spread
from works import usual_works

_CALLERS = 64
_RATE_HZ = 200
# Until the callers, who import grpc first, and py-spy, which reads the symbols, are at work.
_START_S = 1.5
# A column needs some hundred samples.
_LEAST_S = 2.0


def find_py_spy() -> Path:
    """Returns the program. Raises Failure if it is not there."""
    beside = Path(sys.executable).with_name("py-spy")
    found = beside if beside.exists() else shutil.which("py-spy")
    if not found:
        raise Failure(
            "the part profile needs py-spy: .venv/bin/pip install -c constraints.txt py-spy, or leave it out with "
            "--parts cost workers bulk"
        )
    return Path(found)


def measure(plan: Measurement) -> list[Row]:
    """CPU milliseconds of a call by stage, for each work."""
    py_spy = find_py_spy()
    seconds = max(plan.seconds, _LEAST_S)
    rows: list[Row] = []
    with null_server(plan.model) as server:
        (worker,) = workers_of(server)
        for work in usual_works():
            payloads = make_payloads(work.texts, work.texts_a_call)
            call(server.target, payloads, _CALLERS, 0.5)
            # Twice, for sampling slows the worker: CPU time without it, shares with it.
            meter = ThreadMeter(worker)
            loop = call(server.target, payloads, _CALLERS, seconds)
            cpu_s = meter.seconds
            samples = _sample(py_spy, worker, server.target, payloads, seconds)
            rows += _stage_rows(work.name, loop["calls"], cpu_s, samples)
    return rows


def _stage_rows(work: str, calls: int, cpu_s: Mapping[int, float], samples: Mapping[int, Counter[str]]) -> list[Row]:
    by_stage = spread(cpu_s, samples)
    total, seen = sum(by_stage.values()), sum(samples.values(), Counter())
    return [
        {
            "work": work,
            "stage": stage,
            "ms": by_stage[stage] / calls * 1e3,
            "share": by_stage[stage] / total,
            "samples": seen[stage],
        }
        for stage in STAGES
    ]


def _sample(
    py_spy: Path, worker: psutil.Process, target: str, payloads: Sequence[bytes], seconds: float
) -> dict[int, Counter[str]]:
    """Samples the worker's stacks under load; returns counts by thread and stage."""
    with tempfile.TemporaryDirectory(prefix="bench-gateway-") as folder:
        raw = Path(folder) / "stacks"
        command = [str(py_spy), "record", "--pid", str(worker.pid), "--native", "--threads", "--format", "raw"]
        command += ["--rate", str(_RATE_HZ), "--duration", str(max(1, round(seconds))), "--output", str(raw)]
        with ClosedLoop(target, payloads, _CALLERS, seconds + 2 * _START_S) as loop:
            time.sleep(_START_S)
            done = subprocess.run(command, capture_output=True, text=True, timeout=seconds + 120, check=False)
            loop.result()
        if done.returncode or not raw.exists():
            lines = done.stderr.strip().splitlines()
            raise Failure(
                f"py-spy could not sample the worker: {lines[-1] if lines else f'exit {done.returncode}'} "
                "(it needs root or CAP_SYS_PTRACE)"
            )
        samples = count_samples(raw.read_text(encoding="utf-8", errors="replace").splitlines())
    if not samples:
        raise Failure("py-spy took no sample of the worker")
    return samples
