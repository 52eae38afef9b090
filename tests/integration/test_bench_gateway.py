"""`make bench-gateway` in small: tables and figures of two parts, and nothing left of an interrupted run."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

SCRIPT = Path(__file__).parents[2] / "load_tests" / "gateway" / "bench_gateway.py"
WORKS = ("1 short text", "32 short texts", "32 answers of the FAQ")


def start(parts: str, model: str, cache: Path, out: Path) -> subprocess.Popen[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("POLARVEC_")}
    options = f"--quick --rounds 1 --seconds 0.3 --model {model} --parts {parts}"
    return subprocess.Popen(
        [sys.executable, str(SCRIPT), *options.split(), "--out", str(out)],
        env=environment | {"POLARVEC_CACHE_DIR": str(cache)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.slow
def test_two_parts_measure_a_server_and_keep_what_lay_there(tmp_path, cache, tiny_model):
    bulk = {"bulk": "8 answers", "callers": 16, "tokens_per_s": 512_000.0}
    bulk |= {"alone_p99_ms": 1.0, "bulk_p99_ms": 5.0, "pack_ms": 2.0, "packs_above": 2.0}
    (tmp_path / "results.json").write_text(json.dumps({"bulk": [bulk]}), encoding="utf-8")
    with start("cost workers", tiny_model, cache, tmp_path) as process:
        printed, complaints = process.communicate(timeout=110)
    assert process.returncode == 0, complaints + printed
    results = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))
    assert list(results) == ["bulk", "cost", "workers"]
    assert results["bulk"] == [bulk]
    assert [(row["work"], row["callers"]) for row in results["cost"]] == [(w, c) for w in WORKS for c in (1, 64)]
    for row in results["cost"]:
        assert row["times"] == pytest.approx(row["worker_ms"] / row["echo_ms"])
        assert min(row["echo_ms"], row["worker_ms"], row["tokenizer_ms"], row["calls_per_s"]) > 0
    assert [row["workers"] for row in results["workers"]] == [1, 2]
    for row in results["workers"]:
        # Triton and the callers are work, too.
        assert row["all_ms"] > row["worker_ms"] > 0
    table = (tmp_path / "table.md").read_text(encoding="utf-8")
    assert [table.count(f"\n| {work} | ") for work in WORKS] == [2, 2, 2]
    assert table.count("\n## ") == 2
    assert table.startswith("## ")
    assert "\n| 8 answers | 16 | 512,000 | 1.0 | 5.0 | 2.0 | 2.0 |\n" in table


def test_an_interrupted_run_says_so_and_leaves_no_process(tmp_path, cache, tiny_model):
    with start("workers", tiny_model, cache, tmp_path) as process:
        found: dict[int, psutil.Process] = {}
        ends = time.monotonic() + 60
        while not any("callers.py" in line for line in map(_line, found.values())):
            assert time.monotonic() < ends and process.poll() is None
            time.sleep(0.1)
            found |= {child.pid: child for child in psutil.Process(process.pid).children(recursive=True)}
        process.send_signal(signal.SIGTERM)
        _, complaints = process.communicate(timeout=60)
    assert process.returncode == 1
    assert complaints.strip().splitlines()[-1] == "bench-gateway: interrupted; what was measured before is kept"
    # Supervisor, worker, tritonserver, its stub and the callers at least.
    assert len(found) >= 5
    assert [child for child in found.values() if child.is_running()] == []


def _line(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""
