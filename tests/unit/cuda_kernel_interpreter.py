"""Runs every kernel on the CPU through Triton's interpreter and prints how far each is from its reference operator.

A process of its own, started with TRITON_INTERPRET=1: the setting acts while `triton` is imported, and whatever
imported it before would have left compiled kernels behind.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import torch
from cuda_kernel_launches import ARCTIC, BF16, E5_SMALL, F32, FP16, TINY, launches
from polarvec_encoder.architecture import Architecture
from polarvec_encoder.batch import PackedBatch, positions
from polarvec_encoder.cuda.forward import Forward
from polarvec_encoder.cuda.layout import lay_out, views
from polarvec_encoder.cuda.operators import Rows
from polarvec_encoder.cuda.passes import plan_passes
from polarvec_encoder.cuda.reference import ReferenceOperators
from polarvec_encoder.cuda.triton_operators import TritonOperators
from polarvec_encoder.cuda.tuning import Tuning
from polarvec_encoder.cuda.weights import load_weights
from polarvec_encoder.tensor_table import expected_shapes
from polarvec_encoder.weights import StoredTensor

CASES = {
    "e5-small-f32": (E5_SMALL, F32, False),
    "e5-small-fp16": (E5_SMALL, FP16, False),
    "arctic-fp16": (ARCTIC, FP16, False),
    "arctic-bf16": (ARCTIC, BF16, False),
    "arctic-fp8": (ARCTIC, BF16, True),
}
# Triton 3.6's interpreter multiplies the bits of bfloat16 numbers as if they were integers (`create_dot`); the same
# kernel is checked in float16 and float32, and its bfloat16 form is compiled.
NOT_INTERPRETED = {("attend", BF16)}


def exact(rows: Rows | torch.Tensor, quantize: bool) -> list[torch.Tensor]:
    """What an operator answers, as float64 tensors."""
    if isinstance(rows, torch.Tensor):
        return [rows.double()]
    if rows.quantized is None or rows.scales is None:
        return [rows.values.double()]
    return [rows.quantized.double() * rows.scales[:, None].double(), rows.scales.double()]


class RandomWeights:
    """Stands for `polarvec_encoder.weights.Weights` of a model that nobody wrote."""

    def __init__(self, architecture: Architecture) -> None:
        rng = np.random.default_rng(3)
        spread = {"embeddings": 0.5, "encoder": 0.12}
        self._arrays = {
            name: rng.normal(float(name.endswith("LayerNorm.weight")), spread[name.split(".")[0]], shape).astype("f4")
            for name, shape in expected_shapes(architecture).items()
        }
        self.tensors = {name: StoredTensor(Path(), "F32", array.shape, 0) for name, array in self._arrays.items()}

    def stored(self, name: str) -> np.ndarray:
        return self._arrays[name]


def forward_pass(pooling: str) -> None:
    """The whole forward pass on the kernels beside the same on the references."""
    architecture = Architecture("bert", "", 2, TINY.columns, TINY.heads, TINY.inner, 300, 512, 2, 1e-12, 0, 0, False)
    weights = load_weights(RandomWeights(architecture), architecture, "f32", torch.device("cpu"))
    batch = PackedBatch.of_texts([[5] * 3, [7, 8], list(range(3, 60)), [9]])
    last = pooling == "last_token"
    (span,) = plan_passes(batch.lengths, (128,))
    inputs = views(torch.from_numpy(lay_out(batch, positions(batch, architecture), span, 0, 0, last)), 128)
    kernels, expected = (
        Forward(weights, operators, architecture, pooling, "erf", residual_in_product=False)(inputs).double()
        for operators in (TritonOperators(Tuning()), ReferenceOperators())
    )
    error = float((kernels[:4] - expected[:4]).norm() / expected[:4].norm())
    finite = bool(torch.isfinite(kernels).all())
    print(json.dumps({"case": "forward", "operator": pooling, "error": error, "finite": finite}), flush=True)


def main(name: str) -> None:
    if name == "forward":
        forward_pass("last_token")
        return
    shape, dtype, quantize = CASES[name]
    kernels, references = TritonOperators(Tuning()), ReferenceOperators()
    for launch in launches(shape, dtype, quantize):
        if (launch.name, dtype) in NOT_INTERPRETED:
            continue
        found, expected = exact(launch.run(kernels), quantize), exact(launch.run(references), quantize)
        error = max(float((f - e).norm() / e.norm()) for f, e in zip(found, expected, strict=True))
        finite = all(bool(torch.isfinite(f).all()) for f in found)
        print(json.dumps({"case": name, "operator": launch.name, "error": error, "finite": finite}), flush=True)


if __name__ == "__main__":
    for case in sys.argv[1:]:
        main(case)
