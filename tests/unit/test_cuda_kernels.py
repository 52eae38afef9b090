"""The GPU kernels, as far as a machine without a GPU can prove them: interpreted on the CPU, and compiled for Hopper.

Both run in processes of their own: what interprets or records launches must be set before `triton` is imported.
"""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None, reason="the package triton (the kernel language) is not installed"
)

HERE = Path(__file__).parent
ENCODER = HERE.parents[1] / "model_repository" / "encoder" / "1"
# Hopper gives one program this much shared memory.
MAX_SHARED_BYTES = 227 << 10
# The interpreter cuts numbers to bfloat16 and float8 where hardware rounds to the nearest, so these are one whole step
# (2^-8 and 2^-3 of a number's binade); float32 and float16 are as on hardware, but for sums in another order.
TOLERANCE = {"f32": 1e-6, "fp16": 3e-4, "bf16": 6e-3, "fp8": 0.08}
INTERPRETED = [("e5-small-f32", "arctic-fp16"), ("forward", "arctic-bf16", "arctic-fp8")]
COMPILED = [("bf16", "f32"), ("fp16", "fp8", "e5-small")]


def lines_of(scripts, tmp_path_factory, **environment):
    """Runs scripts side by side and returns the JSON lines of all."""
    cache = tmp_path_factory.mktemp("triton")
    started = [
        subprocess.Popen(
            [sys.executable, HERE / script, *cases],
            env={
                **os.environ,
                # What the caller has on the path comes along: another version of the Triton language, say.
                "PYTHONPATH": os.pathsep.join(map(str, (HERE, ENCODER, os.environ.get("PYTHONPATH", "")))),
                "TRITON_CACHE_DIR": str(cache),
                "OMP_NUM_THREADS": "1",
                **environment,
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for script, cases in scripts
    ]
    lines = []
    for process in started:
        out, err = process.communicate(timeout=110)
        assert process.returncode == 0, err[-3000:]
        lines += [json.loads(line) for line in out.splitlines()]
    return lines


@pytest.fixture(scope="module")
def interpreted(tmp_path_factory):
    scripts = [("cuda_kernel_interpreter.py", cases) for cases in INTERPRETED]
    return lines_of(scripts, tmp_path_factory, TRITON_INTERPRET="1")


@pytest.fixture(scope="module")
def compiled(tmp_path_factory):
    environment = {"TRITON_INTERPRET": "0"}
    return lines_of([("cuda_kernel_compiler.py", cases) for cases in COMPILED], tmp_path_factory, **environment)


def test_kernels_compute_what_their_references_compute(interpreted):
    assert len(interpreted) == 9 + 9 + 1 + 8 + 4
    for line in interpreted:
        precision = "f32" if line["case"] == "forward" else line["case"].rsplit("-", 1)[1]
        assert line["finite"], line
        assert line["error"] <= TOLERANCE[precision], line


def test_the_tolerance_would_show_one_wrong_row_in_a_hundred(interpreted):
    """A wrong row of unit-variance numbers in N is a relative error of about sqrt(2 / N): 0.14 in 100."""
    assert max(TOLERANCE.values()) < 0.14
    assert all(line["error"] > 0 for line in interpreted if line["case"] == "arctic-fp16")


def test_kernels_compile_for_hopper_without_spilling(compiled):
    assert len(compiled) == 9 + 9 + 4 + 1 + 2
    for line in compiled:
        assert line["cubin_bytes"] > 0, line
        assert line["shared_bytes"] <= MAX_SHARED_BYTES, line
        assert line["spilled_bytes"] == 0 and line["stack_bytes"] == 0, line


def test_half_precision_attention_runs_on_the_tensor_cores(compiled):
    """`wgmma` is Hopper's own matrix instruction; exact float32 must not use it, for it would round to TF32."""
    attention = {line["case"]: line for line in compiled if line["operator"] == "attend"}
    assert set(attention) == {"bf16", "f32", "fp16", "e5-small"}
    for case, line in attention.items():
        assert (line["wgmma"] > 0) == (case != "f32"), line
        # Two programs on each multiprocessor, so that one multiplies while the other takes exponentials.
        assert case == "f32" or (2 * line["shared_bytes"] <= MAX_SHARED_BYTES and line["registers"] <= 256), line


def test_rows_are_read_sixteen_bytes_at_a_time(compiled):
    for line in compiled:
        if line["case"] in ("bf16", "fp16", "fp8"):
            assert line["wide_loads"] > 0, line
