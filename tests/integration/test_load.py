"""`make load` in small, against a real server: one process, master and workers, the web page; codes, the report."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from pathlib import Path

import numpy as np
import pytest
from server_process import ServerProcess, free_port

LOAD_TESTS = Path(__file__).parents[2] / "load_tests"
STEADY = ["--shape", "steady", "--rate", "30", "--seconds", "2"]
# Nothing here is about speed: a slow machine must not fail it.
PATIENT = ["--slo", "query=60000"]


def run_load(tiny_server: ServerProcess, page: Path, *options: str, workers: int = 0) -> tuple[int, str]:
    """Runs Locust as run.py does, against a server that runs already."""
    about = ["--metrics-url", f"http://127.0.0.1:{tiny_server.http_port}/metrics", "--server-pid", str(tiny_server.pid)]
    script = "import sys; from run import load; sys.exit(load(sys.argv[1], int(sys.argv[2]), sys.argv[3:]))"
    words = [sys.executable, "-c", script, tiny_server.target, str(workers)]
    done = subprocess.run(
        [*words, "--workload", "short", "--report", str(page), *about, *options],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(LOAD_TESTS)},
        timeout=110,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


@pytest.fixture
def page(tmp_path: Path) -> Path:
    return tmp_path / "report.html"


def read(page: Path) -> dict:
    return json.loads(page.with_suffix(".json").read_text(encoding="utf-8"))


def test_one_process_and_a_master_with_two_workers_offer_the_same_and_leave_one_report(tiny_server, tmp_path) -> None:
    reports = []
    for workers in (0, 2):
        page = tmp_path / f"{workers}.html"
        code, said = run_load(tiny_server, page, *STEADY, *PATIENT, workers=workers)
        assert code == 0, said
        reports.append(read(page))
        assert "<svg" in page.read_text(encoding="utf-8")
    alone, shared = (report["phases"][0] for report in reports)
    assert alone["total"]["offered"] == shared["total"]["offered"] > 30
    assert shared["total"]["right"] == shared["total"]["offered"]
    # The same arrivals send the same texts.
    assert alone["total"]["tokens"] == shared["total"]["tokens"] > 0
    for report, count in zip(reports, (1, 2), strict=True):
        assert report["scenario"]["processes"] == count
        assert set(report["phases"][0]["stages"]) == {
            f"query {stage}_ms" for stage in ("queue", "tokenize", "inference", "dispatch")
        }
        assert sum(row["offered"] for row in report["seconds"] if "offered" in row) == alone["total"]["offered"]
        assert report["model"]["id"] == "tiny" and report["texts"][0]["texts"] == 2000
        assert report["server_counters"]["polarvec_requests_total OK"] >= alone["total"]["offered"]
        parts = [row["rss_bytes"] for row in report["server"]]
        assert parts and all(part["engine"] > 0 and part["gateway"] > 0 for part in parts)
        assert list(report["missing"]) == ["packs a batch"]
        text = json.dumps(report)
        assert str(Path.home()) not in text and os.uname().nodename not in text and "127.0.0.1" not in text


@pytest.mark.parametrize("workers", [0, 2])
def test_the_phases_of_a_spike_follow_each_other_without_a_gap(tiny_server, page: Path, workers: int) -> None:
    spike = ["--shape", "spike", "--rate", "20", "--peak-rate", "60", "--seconds", "4", "--arrivals", "constant"]
    code, said = run_load(tiny_server, page, *spike, *PATIENT, workers=workers)
    assert code == 0, said
    phases = read(page)["phases"]
    start_s = phases[0]["start_s"]
    begun = {phase["name"]: phase["start_s"] - start_s for phase in phases}
    assert begun == {"before": 0, "spike": 1, "after": 3}
    assert [phase["total"]["offered"] for phase in phases] == [20, 120, 20]
    assert [phase["total"]["right"] for phase in phases] == [20, 120, 20]


def test_a_broken_limit_is_exit_code_1_and_named(tiny_server: ServerProcess, page: Path) -> None:
    code, said = run_load(tiny_server, page, *STEADY, "--limits", "query.p50=0.001 goodput=1")
    assert code == 1
    (problem,) = read(page)["problems"]
    assert problem.startswith("steady: p50 of query is") and problem in said


def test_wrong_vectors_are_found_by_every_worker(tiny_server: ServerProcess, page: Path, tmp_path: Path) -> None:
    """References of a run before, with the vectors of two texts exchanged, as a server that mixes up would answer."""
    kept = tmp_path / "kept.npz"
    assert run_load(tiny_server, page, *STEADY, *PATIENT, "--references", str(kept))[0] == 0
    with np.load(kept) as file:
        arrays = dict(file)
    arrays["vectors"] = np.roll(arrays["vectors"], 1, axis=0)
    np.savez(kept, **arrays)
    options = [*STEADY, *PATIENT, "--references", str(kept), "--limits", ""]
    code, said = run_load(tiny_server, page, *options, workers=2)
    assert code == 1
    total = read(page)["phases"][0]["total"]
    # A random model gives some texts nearly the same vector.
    assert total["wrong"] > total["offered"] / 2, said
    assert {error["error"] for error in read(page)["phases"][0]["errors"]} == {"WRONG_VECTOR cosine below 0.999"}


def test_failures_are_named_by_code_and_dropped_arrivals_by_their_own(tiny_server, page: Path) -> None:
    # No call is answered in a tenth of a millisecond; and 30 calls a second find none of one open call free.
    code, _ = run_load(tiny_server, page, *STEADY, "--call-timeout-s", "0.0001")
    phase = read(page)["phases"][0]
    assert code == 1
    assert phase["total"]["failed"] == phase["total"]["offered"]
    # A call that cannot be done in its time is refused at once where the server is busy (RESOURCE_EXHAUSTED).
    codes = {error["error"].split()[0] for error in phase["errors"]}
    assert "DEADLINE_EXCEEDED" in codes and codes <= {"DEADLINE_EXCEEDED", "RESOURCE_EXHAUSTED"}
    code, _ = run_load(tiny_server, page, "--shape", "steady", "--rate", "3000", "--seconds", "1", "--max-open", "1")
    phase = read(page)["phases"][0]
    assert code == 1
    assert phase["total"]["dropped"] > 0
    assert phase["total"]["dropped"] + phase["total"]["right"] == phase["total"]["offered"]
    assert [error["error"] for error in phase["errors"]] == ["DROPPED too many open calls"]


def test_wrong_options_are_said_before_anything_starts(tiny_server: ServerProcess, page: Path) -> None:
    for options in (["--workload", "nothing"], ["--limits", "other.p99=1"], ["--rate", "0"]):
        code, said = run_load(tiny_server, page, *options)
        assert code != 0 and "Traceback" not in said, said
        assert not page.exists()


def test_the_web_page_starts_a_run_with_our_options(tiny_server: ServerProcess, page: Path) -> None:
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    words = ["-f", str(LOAD_TESTS / "locustfile.py"), "--host", tiny_server.target, "--report", str(page)]
    command = [sys.executable, "-m", "locust", *words, "--web-host", "127.0.0.1", "--web-port", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        assert "max_open" in wait_for(lambda: get(url), process)
        form = {"workload": "short", "shape": "steady", "rate": "20", "seconds": "2", "host": tiny_server.target}
        swarm = urllib.request.Request(f"{url}/swarm", urllib.parse.urlencode(form).encode(), method="POST")
        with urllib.request.urlopen(swarm, timeout=30) as answer:
            assert json.load(answer)["success"]
        wait_for(lambda: page.exists() and json.loads(get(f"{url}/stats/requests"))["state"] == "stopped", process)
        assert read(page)["scenario"]["workload"]["name"] == "short"
        assert read(page)["phases"][0]["total"]["right"] > 20
    finally:
        process.terminate()  # SIGINT would break into the answer that it may still be writing.
        output, _ = process.communicate(timeout=30)
    assert "Traceback" not in output, output


def get(url: str) -> str:
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            return answer.read().decode()
    except OSError:
        return ""


def wait_for(condition, process: subprocess.Popen):
    ends_s = time.monotonic() + 60
    while not (value := condition()):
        assert process.poll() is None and time.monotonic() < ends_s
        time.sleep(0.2)
    return value
