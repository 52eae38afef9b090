"""Part `library`: sentence-transformers in bf16 on the same model, machine and run."""

from __future__ import annotations

import time
from typing import Any

import torch
from measuring import say, seconds_of
from model import words
from scale import Scale


def run(scale: Scale, earlier: dict[str, Any]) -> dict[str, Any]:
    """Its `encode` with texts of one length, and its forward pass alone, which has nothing to pad then."""
    try:
        from sentence_transformers import SentenceTransformer
    except ModuleNotFoundError as error:
        return {"left_out": f"the package {error.name} is not installed"}
    dtype = torch.float32 if scale.dry else torch.bfloat16
    model = SentenceTransformer(
        str(scale.folder), device=scale.device, local_files_only=True, model_kwargs={"dtype": dtype}
    )
    rows = []
    for length in scale.lengths:
        rows.append({"length": length} | _rates(scale, model, length))
        say(f"  {rows[-1]}")
    return {"dtype": str(dtype), "rows": rows}


def _rates(scale: Scale, model: Any, length: int) -> dict[str, float]:
    tokens = 2048 if scale.dry else 65536
    texts = [words(length, seed) for seed in range(max(1, tokens // length))]
    batch_texts = max(1, min(len(texts), (1024 if scale.dry else 16384) // length))
    model.encode(texts[:batch_texts], batch_size=batch_texts)
    began, rounds = time.monotonic(), 0
    while rounds == 0 or time.monotonic() - began < scale.short_s:
        model.encode(texts, batch_size=batch_texts)
        rounds += 1
    encoded = rounds * len(texts) * length / (time.monotonic() - began)
    ids = torch.randint(4, 900, (batch_texts, length), device=scale.device)
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    with torch.inference_mode():
        seconds = seconds_of(lambda: model[0].auto_model(**inputs), scale.device, scale.short_s / 2, per_round=3)
    return {"encode_tokens_per_s": encoded, "forward_tokens_per_s": ids.numel() / seconds, "batch_texts": batch_texts}
