"""Part `accuracy`: the full model in every precision beside float32 `transformers`, with random weights.

Random weights say how rounding grows through 24 layers, not what it does to a real model's ranking.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import transformers
from engines import make_engine, random_batch
from measuring import say
from numpy.typing import NDArray
from polarvec_encoder.batch import PackedBatch
from polarvec_encoder.cuda.tuning import Tuning
from polarvec_encoder.engine import encode_all
from scale import Scale

LENGTHS = (1, 2, 3, 16, 17, 60, 127, 128, 129, 300, 512, 1000, 2048, 8192)
# Least and mean cosine to float32, and greatest error of the cosine of two texts. Float8 imitated on a CPU gives 0.988,
# 0.989 and 0.009 on the arctic shape with random weights, and 0.9989, 0.9993 and 0.008 on e5-small.
LIMITS = {
    "f32": (0.99999, 0.99999, 1e-4),
    "fp16": (0.99998, 0.99998, 1e-3),
    "bf16": (0.9995, 0.9999, 5e-3),
    "fp8": (0.98, 0.985, 3e-2),
}


def run(scale: Scale, earlier: dict[str, Any]) -> dict[str, Any]:
    """Compare every variant."""
    lengths = [length for length in LENGTHS if length <= min(scale.lengths[-1], scale.max_tokens)]
    batch = random_batch(scale, lengths * 2, seed=1)
    exact = unit(float32_vectors(scale, batch))
    rows = []
    for precision in scale.precisions:
        for gelu in ("erf",) if precision == "f32" else ("tanh", "erf"):
            for inside in (False, True):
                tuning = Tuning(pass_tokens=scale.pass_tokens, residual_in_product=inside)
                try:
                    engine = make_engine(scale, precision, gelu, tuning)
                    rows.append(_row(precision, gelu, inside, unit(encode_all(engine, batch)), exact))
                    del engine
                except Exception as error:
                    rows.append({"precision": precision, "gelu": gelu, "error": f"{type(error).__name__}: {error}"})
                say(f"  {rows[-1]}")
    return {"lengths": lengths, "rows": rows}


def _row(precision: str, gelu: str, inside: bool, found: NDArray[np.float32], exact: NDArray[Any]) -> dict[str, Any]:
    cosines = (found * exact).sum(axis=1)
    pairs = float(np.abs(found @ found.T - exact @ exact.T).max())
    least, mean, worst_pair = LIMITS[precision]
    return {
        "precision": precision,
        "gelu": gelu,
        "residual_in_product": inside,
        "least_cosine": float(cosines.min()),
        "mean_cosine": float(cosines.mean()),
        "pair_error": pairs,
        "pass": bool(cosines.min() >= least and cosines.mean() >= mean and pairs <= worst_pair),
    }


def unit(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Vectors of length 1."""
    shortened: NDArray[np.float32] = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return shortened


def float32_vectors(scale: Scale, batch: PackedBatch) -> NDArray[np.float32]:
    """The first token's vectors by `transformers` in float32, one text at a time."""
    # Exact products: TF32 would be off by more than fp16.
    torch.set_float32_matmul_precision("highest")
    model = transformers.AutoModel.from_pretrained(
        scale.folder, dtype=torch.float32, local_files_only=True, add_pooling_layer=False
    )
    model = model.to(scale.device).eval()
    vectors = []
    with torch.inference_mode():
        for start, length in zip(batch.starts, batch.lengths, strict=True):
            ids = torch.from_numpy(batch.token_ids[start : start + length].astype(np.int64))[None].to(scale.device)
            vectors.append(model(input_ids=ids).last_hidden_state[0, 0].float().cpu().numpy())
    return np.stack(vectors)
