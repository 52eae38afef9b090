"""What a benchmark started ends with it: after SIGTERM, after Ctrl-C, and where a child does not want to."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

LOAD_TESTS = Path(__file__).parents[2] / "load_tests"
# A child with a child of its own; the benchmark says both pids when they run.
CHILD = """
import subprocess, sys, time
grandchild = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
print(grandchild.pid, flush=True)
try:
    time.sleep(600)
finally:
    grandchild.kill()
"""
BENCHMARK = f"""
import subprocess, sys, time
from own_children import own_children
with own_children():
    child = subprocess.Popen([sys.executable, "-c", {CHILD!r}], stdout=subprocess.PIPE, text=True)
    print(child.pid, child.stdout.readline(), flush=True)
    {{ending}}
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, None], ids=["SIGTERM", "Ctrl-C", "by itself"])
def test_no_process_stays(number: signal.Signals | None) -> None:
    script = BENCHMARK.format(ending="time.sleep(600)" if number else "pass")
    benchmark = subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=LOAD_TESTS
    )
    assert benchmark.stdout is not None
    started = []
    for pid in map(int, benchmark.stdout.readline().split()):
        try:
            started.append(psutil.Process(pid))
        except psutil.NoSuchProcess:
            assert number is None  # It may be gone by now.
    if number:
        benchmark.send_signal(number)
    said = benchmark.communicate(timeout=60)[1]
    assert (benchmark.returncode == 0) == (number is None), said
    assert not [process for process in started if process.is_running() and process.status() != psutil.STATUS_ZOMBIE]
