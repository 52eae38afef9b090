"""`make load` that is stopped, with its own server: a report that says so, and no process left behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

sys.path.append(str(Path(__file__).parents[2] / "load_tests"))

import own_server

LOAD_TESTS = Path(__file__).parents[2] / "load_tests"
LOAD = ["--shape", "sweep", "--rates", "5,6", "--step-seconds", "1", "--workload", "short", "--slo", "query=60000"]
ENDLESS = ["--rates", ",".join(["5"] * 600)]


SWALLOWING = """
import time, gevent
from locust import events

def swallow():
    while True:
        try:
            ends_s = time.monotonic() + 0.2
            while time.monotonic() < ends_s:
                pass
        except KeyboardInterrupt:
            pass
        gevent.sleep(0.002)

events.init.add_listener(lambda **_: gevent.spawn(swallow))
"""


def start(model: str, page: Path, *more: str) -> subprocess.Popen[str]:
    words = [sys.executable, str(LOAD_TESTS / "run.py"), "--model", model, "--report", str(page), *LOAD, *ENDLESS]
    words += more
    return subprocess.Popen(
        words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True, bufsize=1
    )


def stays(processes: list[psutil.Process]) -> list[psutil.Process]:
    psutil.wait_procs(processes, timeout=30)
    return [process for process in processes if process.is_running() and process.status() != psutil.STATUS_ZOMBIE]


@pytest.mark.parametrize(
    ("number", "whole_group"), [(signal.SIGINT, True), (signal.SIGTERM, False)], ids=["Ctrl-C", "SIGTERM"]
)
def test_a_stopped_load_leaves_a_report_that_says_so_and_no_process(tiny_model, tmp_path, number, whole_group) -> None:
    page = tmp_path / "report.html"
    run = start(tiny_model, page)
    assert run.stdout is not None
    # A phase's line is printed when it is over.
    assert any("offered" in line for line in run.stdout)
    started = psutil.Process(run.pid).children(recursive=True)
    assert len(started) >= 3
    # A terminal sends Ctrl-C to all that runs in it.
    (os.killpg if whole_group else os.kill)(run.pid, number)
    said = run.communicate(timeout=100)[0]
    assert run.returncode == 1, said
    assert page.exists(), said
    assert "the run was stopped before its end" in json.loads(page.with_suffix(".json").read_text())["problems"]
    assert not stays(started)


def test_an_interrupt_ends_a_load_whose_running_greenlet_would_swallow_it(tiny_model: str, tmp_path: Path) -> None:
    page, swallowing = tmp_path / "report.html", tmp_path / "swallowing.py"
    swallowing.write_text(SWALLOWING)
    run = start(tiny_model, page, "--locustfile", f"{LOAD_TESTS / 'locustfile.py'},{swallowing}")
    assert run.stdout is not None
    assert any("offered" in line for line in run.stdout)
    run.send_signal(signal.SIGINT)
    said = run.communicate(timeout=100)[0]
    assert run.returncode == 1, said
    assert page.exists(), said


@pytest.mark.parametrize("workers", [0, 2])
def test_what_was_measured_of_a_phase_that_is_stopped_is_reported(
    tiny_model: str, tmp_path: Path, workers: int
) -> None:
    page = tmp_path / "report.html"
    run = start(tiny_model, page, "--shape", "steady", "--seconds", "600", "--rate", "20", "--workers", str(workers))
    assert run.stdout is not None
    assert any("as references" in line for line in run.stdout)
    # Load processes tell what they have measured every three seconds.
    time.sleep(12)
    run.send_signal(signal.SIGINT)
    said = run.communicate(timeout=100)[0]
    assert run.returncode == 1, said
    report = json.loads(page.with_suffix(".json").read_text())
    assert report["problems"] == ["the run was stopped before its end"]
    (phase,) = report["phases"]
    assert phase["name"] == "steady, stopped" and not phase["judged"]
    assert phase["seconds"] >= 1
    assert phase["total"]["right"] == phase["total"]["offered"] > 0


def test_a_killed_load_leaves_no_process(tiny_model: str, tmp_path: Path) -> None:
    run = start(tiny_model, tmp_path / "report.html")
    assert run.stdout is not None
    assert any("offered" in line for line in run.stdout)
    started = psutil.Process(run.pid).children(recursive=True)
    run.kill()
    run.communicate(timeout=100)
    assert not stays(started)


def test_a_server_that_does_not_end_is_killed(tiny_model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(own_server, "_END_S", 0.5)
    with (
        pytest.raises(subprocess.TimeoutExpired),
        own_server.OwnServer(tiny_model, openai_port="0") as server,
    ):
        supervisor = psutil.Process(server.pid)
        started = [supervisor, *supervisor.children(recursive=True)]
        supervisor.suspend()
    assert not stays(started)
