"""Clocks: seconds of work on a GPU by its own events, on the CPU by the wall, and what nvidia-smi says meanwhile."""

from __future__ import annotations

import shutil
import statistics
import subprocess
import time
from collections.abc import Callable

import torch

_CLOCKS = "clocks.sm,clocks.mem,power.draw,temperature.gpu,clocks_event_reasons.active,utilization.gpu"


def seconds_of(work: Callable[[], object], device: str, seconds: float, per_round: int = 10) -> float:
    """Median seconds of one call of `work`, repeated for about `seconds` after a warm-up."""
    for _ in range(3):
        work()
    synchronize(device)
    rounds: list[float] = []
    started = time.monotonic()
    while time.monotonic() - started < seconds or len(rounds) < 3:
        rounds.append(_round(work, device, per_round))
    return statistics.median(rounds)


def _round(work: Callable[[], object], device: str, per_round: int) -> float:
    if device == "cpu":
        began = time.perf_counter()
        for _ in range(per_round):
            work()
        return (time.perf_counter() - began) / per_round
    began, ended = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    began.record()
    for _ in range(per_round):
        work()
    ended.record()
    ended.synchronize()
    return began.elapsed_time(ended) / 1e3 / per_round


def synchronize(device: str) -> None:
    """Wait for the device."""
    if device != "cpu":
        torch.cuda.synchronize()


def clocks() -> str:
    """Clocks, power and temperature, read only; empty without nvidia-smi."""
    return nvidia_smi(f"--query-gpu={_CLOCKS}", "--format=csv,noheader")


def nvidia_smi(*arguments: str) -> str:
    """What nvidia-smi answers; it is never asked to change anything."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return ""
    done = subprocess.run([program, *arguments], capture_output=True, text=True, timeout=30, check=False)
    return done.stdout.strip()


def reason_of(error: Exception) -> str:
    """The class of an error and the first line that it says; torch, the Triton language and gcc each have their own."""
    return f"{type(error).__name__}: {error}".split("\n", 1)[0]


def say(text: str) -> None:
    """Print at once, so that a run that is cut off has shown what it knew."""
    print(text, flush=True)
