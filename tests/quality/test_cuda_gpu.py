"""The script for a visit to a GPU: here its dry run; where there is a GPU, its checks of kernels, model and graphs."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

SCRIPT = Path(__file__).parents[2] / "load_tests" / "gpu" / "bench_gpu.py"
NEEDS_GPU = pytest.mark.skipif(
    not torch.cuda.is_available(),
    reason="needs an NVIDIA GPU and a CUDA build of torch; without one test_cuda_kernels and test_cuda_parity stand in",
)


def run(out, *arguments, timeout, code=0):
    done = subprocess.run(
        [sys.executable, SCRIPT, "--out", out, *arguments], capture_output=True, text=True, timeout=timeout, check=False
    )
    assert done.returncode == code, done.stderr[-3000:]
    return json.loads((Path(out) / "results.json").read_text()), done.stdout


def test_the_script_runs_without_a_gpu(tmp_path):
    found, printed = run(tmp_path, "--dry-run", "--parts", "model", "robustness", "--seconds", "0.1", timeout=100)
    assert "failed" not in found["model"]
    assert len(found["robustness"]) == 10
    assert all(check["pass"] for check in found["robustness"].values()), found["robustness"]
    assert "| bf16 NaN poison | within tolerance | | pass |" in printed
    assert "| engine, 128 tokens, tokens/s | at least 850,000 | not yet measured | not yet measured |" in printed
    assert (tmp_path / "table.md").is_file()


def test_a_part_that_fails_costs_only_itself(tmp_path):
    """Without the part `model` there is no folder to load."""
    found, printed = run(tmp_path, "--dry-run", "--parts", "robustness", timeout=100, code=1)
    assert "ModelRefused" in found["robustness"]["failed"]
    assert "Part robustness failed: ModelRefused" in printed


def test_a_part_without_time_is_named_in_the_report(tmp_path):
    found, printed = run(tmp_path, "--dry-run", "--budget-s", "0", timeout=100)
    assert len(found) == 9 and all(part["left_out"] == "no time was left" for part in found.values())
    assert "Part throughput was left out: no time was left" in printed


def test_a_part_that_hangs_is_ended_with_what_it_started(tmp_path):
    pid = tmp_path / "pid"
    started = (
        "import subprocess; process = subprocess.Popen(['sleep', '60']);"
        f"open({str(pid)!r}, 'w').write(str(process.pid)); process.wait()"
    )
    script = (
        f"import sys; sys.path.insert(0, {str(SCRIPT.parent)!r}); import os; from bench_gpu import run_within;"
        f"print(run_within([sys.executable, '-c', {started!r}], os.environ, 2))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=30, check=True)
    assert done.stdout == "it took longer than 2 s\n"
    status = Path("/proc", pid.read_text(), "status")
    # Gone, or waiting for whoever adopts it to read its end.
    assert not status.exists() or "State:\tZ" in status.read_text()


@pytest.fixture(scope="module")
def visit(tmp_path_factory):
    parts = ("environment", "model", "kernels", "accuracy", "robustness")
    return run(tmp_path_factory.mktemp("visit"), "--seconds", "2", "--parts", *parts, timeout=600)[0]


@NEEDS_GPU
@pytest.mark.slow
@pytest.mark.timeout(650)
def test_kernels_compute_what_their_references_compute_on_a_gpu(visit):
    assert [check for check in visit["kernels"]["checks"] if not check["pass"]] == []


@NEEDS_GPU
@pytest.mark.slow
@pytest.mark.timeout(650)
def test_the_full_model_stays_near_float32_on_a_gpu(visit):
    assert [row for row in visit["accuracy"]["rows"] if not row.get("pass")] == []


@NEEDS_GPU
@pytest.mark.slow
@pytest.mark.timeout(650)
@pytest.mark.parametrize("check", ["size edges", "company", "NaN poison", "graph replay", "soak"])
@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_nothing_around_a_text_changes_its_vector_on_a_gpu(visit, precision, check):
    assert visit["robustness"][f"{precision} {check}"]["pass"], visit["robustness"][f"{precision} {check}"]["found"]
