"""Engines and batches that several parts make, and their closed loop."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence

import numpy as np
from polarvec_encoder.architecture import Pooling, read_architecture
from polarvec_encoder.batch import PackedBatch
from polarvec_encoder.cuda.engine import CudaEngine
from polarvec_encoder.cuda.operators import Gelu
from polarvec_encoder.cuda.tuning import Tuning
from scale import VOCABULARY_START, Scale


def make_engine(
    scale: Scale, precision: str, gelu: Gelu, tuning: Tuning | None = None, pooling: Pooling = "cls"
) -> CudaEngine:
    """The engine on the random model; the passes of a dry run are small."""
    tuning = tuning or Tuning(pass_tokens=scale.pass_tokens)
    return CudaEngine(
        scale.folder, read_architecture(scale.folder), pooling, precision, gelu, device=scale.device, tuning=tuning
    )


def random_batch(scale: Scale, lengths: Sequence[int], seed: int) -> PackedBatch:
    """Texts of random ids between <s> and </s>."""
    rng = np.random.default_rng(seed)
    sizes = np.array(lengths, np.int32)
    ids = rng.integers(VOCABULARY_START, min(scale.vocabulary, 250_000), int(sizes.sum())).astype(np.int32)
    ends = np.cumsum(sizes)
    ids[ends - sizes], ids[ends - 1] = 0, 2
    return PackedBatch(ids, sizes)


def tokens_per_s(engine: CudaEngine, batches: Sequence[PackedBatch], seconds: float) -> float:
    """Keep as many batches in flight as the engine allows, for about `seconds`, after one round unmeasured."""
    for batch in batches:
        for _ in engine.encode(batch):
            pass
    started, tokens, turn = time.monotonic(), 0, 0
    in_flight: deque[tuple[int, object]] = deque()
    while time.monotonic() - started < seconds:
        batch = batches[turn % len(batches)]
        turn += 1
        in_flight.append((batch.token_ids.size, engine.encode(batch)))
        if len(in_flight) == engine.batches_in_flight:
            tokens += _finish(in_flight)
    while in_flight:
        tokens += _finish(in_flight)
    return tokens / (time.monotonic() - started)


def _finish(in_flight: deque[tuple[int, object]]) -> int:
    tokens, answers = in_flight.popleft()
    for _ in answers:  # type: ignore[attr-defined]
        pass
    return tokens
