"""Compiles kernel launches for Hopper without a GPU and prints what the assembler says of each, one JSON line each.

The launches are recorded where the operators make them, so that what is compiled is what runs. A process of its own,
because it replaces the launch of every kernel.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
import triton
from cuda_kernel_launches import ARCTIC, BF16, E5_SMALL, F32, FP16, launches
from polarvec_encoder.cuda.triton_operators import TritonOperators
from polarvec_encoder.cuda.tuning import Tuning
from triton.backends.compiler import GPUTarget
from triton.backends.nvidia import compiler as nvidia
from triton.compiler import ASTSource
from triton.runtime.jit import JITFunction

HOPPER = GPUTarget("cuda", 90, 32)
PTXAS = Path(nvidia.__file__).with_name("bin") / "ptxas"
TYPES = {
    torch.float32: "*fp32",
    torch.bfloat16: "*bf16",
    torch.float16: "*fp16",
    torch.int32: "*i32",
    torch.float8_e4m3fn: "*fp8e4nv",
}
OPTIONS = ("num_warps", "num_stages")
CASES = {
    "bf16": (ARCTIC, BF16, False),
    "fp16": (ARCTIC, FP16, False),
    "fp8": (ARCTIC, BF16, True),
    "f32": (ARCTIC, F32, False),
    "e5-small": (E5_SMALL, BF16, False),
}
# Here only what differs from the other cases by more than a number format.
ONLY = {"f32": ("attend",), "e5-small": ("attend", "normalize")}


def source_of(kernel: JITFunction, positional: tuple[Any, ...], named: dict[str, Any]) -> tuple[ASTSource, dict]:
    """Turn a launch into what the compiler takes: types of the pointers, values of the constants, and options."""
    options = {key: named.pop(key) for key in OPTIONS if key in named}
    values = dict(zip(kernel.arg_names, positional, strict=False)) | named
    signature, constants, aligned = {}, {}, {}
    for place, parameter in enumerate(kernel.params):
        value = values[parameter.name]
        if parameter.is_constexpr or value is None:
            signature[parameter.name], constants[parameter.name] = "constexpr", value
        elif isinstance(value, torch.Tensor):
            signature[parameter.name] = TYPES[value.dtype]
            aligned[place,] = [["tt.divisibility", 16]]
        else:
            signature[parameter.name] = "fp32"
    return ASTSource(kernel, signature=signature, constexprs=constants, attrs=aligned), options


def compiled(source: ASTSource, options: dict[str, int]) -> dict[str, int]:
    kernel = triton.compile(source, target=HOPPER, options=options)
    with tempfile.TemporaryDirectory() as folder:
        ptx, cubin = Path(folder, "kernel.ptx"), Path(folder, "kernel.cubin")
        ptx.write_text(kernel.asm["ptx"])
        said = subprocess.run(
            [PTXAS, "-v", "--gpu-name=sm_90a", ptx, "-o", cubin], capture_output=True, text=True, check=True
        ).stderr
    return {
        "cubin_bytes": len(kernel.asm["cubin"]),
        "shared_bytes": kernel.metadata.shared,
        "registers": int(re.search(r"Used (\d+) registers", said)[1]),
        "spilled_bytes": sum(map(int, re.findall(r"(\d+) bytes spill", said))),
        "stack_bytes": int(re.search(r"(\d+) bytes stack frame", said)[1]),
        "wgmma": kernel.asm["ptx"].count("wgmma.mma_async"),
        "wide_loads": len(re.findall(r"ld\.global[^;]*\.v4\.b32|cp\.async\.cg", kernel.asm["ptx"])),
    }


def main(case: str, **changes: int) -> None:
    shape, dtype, quantize = CASES[case]
    operators = TritonOperators(Tuning(**changes))
    recorded: list[tuple[JITFunction, tuple[Any, ...], dict[str, Any]]] = []
    JITFunction.run = lambda self, *args, grid, warmup, **named: recorded.append((self, args, named))
    for launch in launches(shape, dtype, quantize):
        if launch.name not in ONLY.get(case, (launch.name,)):
            continue
        recorded.clear()
        launch.run(operators)
        (kernel, positional, named) = recorded[0]
        print(json.dumps({"case": case, "operator": launch.name} | compiled(*source_of(kernel, positional, named))))


if __name__ == "__main__":
    for name in sys.argv[1:]:
        main(name)
