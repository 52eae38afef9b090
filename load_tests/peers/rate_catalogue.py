"""The rows of the comparison at the same arrival rates: which server, asked by which client."""

from __future__ import annotations

from catalogue import Row


def _row(name: str, door: str, environment: str, script: str, **settings: str | int | float) -> Row:
    return Row(name, "server", environment, script, {"door": door, **settings})


ROWS = (
    _row("polarvec bf16", "sdk", "", "run_polarvec.py", precision="bf16"),
    _row("polarvec f32", "sdk", "", "run_polarvec.py", precision="f32"),
    _row("tritonclient bf16", "triton", "", "run_polarvec.py", precision="bf16"),
    _row("tritonclient f32", "triton", "", "run_polarvec.py", precision="f32"),
    _row("infinity bfloat16", "http", "infinity", "run_infinity.py", dtype="bfloat16"),
    _row("infinity float32", "http", "infinity", "run_infinity.py", dtype="float32"),
    # OpenVINO, which takes bf16 by itself, is sentence-transformers' fastest backend for questions and for bulk in
    # `make bench-peers`. A batch waits 5 ms at most, so that a lone question does not pay for it.
    _row(
        "litserve openvino",
        "http",
        "litserve",
        "run_litserve.py",
        backend="openvino",
        max_batch_size=32,
        batch_timeout_s=0.005,
    ),
    _row("llama.cpp q8_0", "http", "llama-cpp", "run_llama_cpp.py", file_type="q8_0"),
    _row("llama.cpp f16", "http", "llama-cpp", "run_llama_cpp.py", file_type="f16"),
)
