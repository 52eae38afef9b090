"""Part `robustness`: on the device itself, what must hold whatever shares a pass and whatever ran before.

The same checks are tests (tests/quality/test_cuda_gpu.py) on a machine with a GPU.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from accuracy import unit
from engines import make_engine, random_batch
from measuring import say
from numpy.typing import NDArray
from polarvec_encoder.batch import PackedBatch
from polarvec_encoder.cuda.engine import CudaEngine
from polarvec_encoder.cuda.layout import views
from polarvec_encoder.cuda.passes import TOKENS_PER_TEXT
from polarvec_encoder.engine import encode_all
from scale import Scale

_LEAST = {"bf16": 0.9999, "fp16": 0.99999}


def run(scale: Scale, earlier: dict[str, Any]) -> dict[str, Any]:
    """Run every check in bf16 and fp16."""
    found: dict[str, Any] = {}
    for precision in ("bf16", "fp16"):
        engine = make_engine(scale, precision, "tanh")
        say(f"  {engine.description}")
        for name, check in CHECKS.items():
            try:
                passed, words = check(scale, engine, precision)
            except Exception as error:
                passed, words = False, f"{type(error).__name__}: {error}"
            found[f"{precision} {name}"] = {"pass": passed, "found": words}
            say(f"  {precision} {name}: {'pass' if passed else 'FAIL'}: {words}")
    return found


def _least_cosine(left: NDArray[np.float32], right: NDArray[np.float32]) -> float:
    return float((unit(left) * unit(right)).sum(axis=1).min())


def _join(*batches: PackedBatch) -> PackedBatch:
    return PackedBatch.join(batches)


def edges(scale: Scale, engine: CudaEngine, precision: str) -> tuple[bool, str]:
    """A text alone, and in passes filled to each size less one, exactly, and one more."""
    text = random_batch(scale, [37], seed=3)
    alone, least = encode_all(engine, text), 1.0
    for size in engine._sizes:
        for total in (size - 1, size, size + 1):
            rest = total - 37
            lengths = [300] * (rest // 300) + ([rest % 300] if rest % 300 else [])
            found = encode_all(engine, _join(text, random_batch(scale, lengths, seed=total)))
            least = min(least, _least_cosine(found[:1], alone))
    return least >= _LEAST[precision], f"least cosine {least:.7f} over {len(engine._sizes)} sizes"


def company(scale: Scale, engine: CudaEngine, precision: str) -> tuple[bool, str]:
    """Changing one text leaves the others' bits alone; another order leaves them near."""
    batches = [random_batch(scale, [length], seed=length) for length in (7, 60, 128, 3, 300, 90, 33, 129, 1, 480)]
    before = encode_all(engine, _join(*batches))
    changed = [random_batch(scale, [60], seed=99) if place == 1 else batch for place, batch in enumerate(batches)]
    after = encode_all(engine, _join(*changed))
    kept = np.arange(len(batches)) != 1
    same = bool((before[kept] == after[kept]).all())
    least = _least_cosine(encode_all(engine, _join(*batches[::-1]))[::-1], before)
    return same and least >= _LEAST[precision], f"others bitwise the same: {same}; reversed: least cosine {least:.7f}"


def poison(scale: Scale, engine: CudaEngine, precision: str) -> tuple[bool, str]:
    """NaN in every buffer between small, large and small passes leaves their bits as they were."""
    small, large = random_batch(scale, [5, 9], 1), random_batch(scale, [scale.max_tokens // 2, 300, 128], 2)
    expected, right = {id(batch): encode_all(engine, batch) for batch in (small, large)}, True
    for batch in (small, large, small, large, small):
        for slot in engine._runner.slots:
            slot.vectors.fill_(float("nan"))
            slot.host_vectors.fill_(float("nan"))
        if scale.device != "cpu":
            # What torch hands out next holds NaN too: the memory of passes that run without a graph.
            filler = torch.full((64 << 20,), float("nan"), device=scale.device)
            del filler
            torch.cuda.synchronize()
        found = encode_all(engine, batch)
        right = right and bool(np.array_equal(found, expected[id(batch)]))
    return right, f"bitwise the same: {right}"


def replay(scale: Scale, engine: CudaEngine, precision: str) -> tuple[bool, str]:
    """A graph's vectors are those of the same pass run without it."""
    batch = random_batch(scale, [37, 300, 90], seed=5)
    found = encode_all(engine, batch)
    slot = next(slot for slot in engine._runner.slots if bool((slot.host_vectors[0].numpy() == found[0]).all()))
    tokens = next(size for size in engine._sizes if size >= 427)
    with torch.inference_mode():
        eager = engine._runner._forward(views(slot.inputs, tokens))[: tokens // TOKENS_PER_TEXT].cpu().numpy()[:3]
    least, same = _least_cosine(eager, found), bool((eager == found).all())
    return least >= 0.999999, f"bitwise the same: {same}; least cosine {least:.7f}"


def soak(scale: Scale, engine: CudaEngine, precision: str) -> tuple[bool, str]:
    """Random batches: all finite, the same texts the same vectors, and not a byte more held at the end."""
    rng = np.random.default_rng(6)
    known = random_batch(scale, [50, 20], seed=7)
    expected = encode_all(engine, known)
    count, least, held = (5 if scale.dry else 1000), 1.0, 0
    for turn in range(count):
        lengths = np.minimum(rng.integers(1, 600, rng.integers(1, 80)), scale.max_tokens)
        found = encode_all(engine, _join(known, random_batch(scale, lengths.tolist(), seed=turn)))
        least = min(least, _least_cosine(found[:2], expected))
        if turn == count // 10:
            held = engine._runner.buffer_bytes
    grown = engine._runner.buffer_bytes - held
    return least >= _LEAST[precision] and grown == 0, f"{count} batches, least cosine {least:.7f}, {grown} bytes more"


CHECKS: dict[str, Callable[[Scale, CudaEngine, str], tuple[bool, str]]] = {
    "size edges": edges,
    "company": company,
    "NaN poison": poison,
    "graph replay": replay,
    "soak": soak,
}
