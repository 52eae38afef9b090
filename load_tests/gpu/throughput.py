"""Part `throughput`: tokens a second of the engine by text length, latency of one text, and where the time goes."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from engines import make_engine, random_batch, tokens_per_s
from measuring import clocks, reason_of, say, seconds_of
from polarvec_encoder.batch import PackedBatch
from polarvec_encoder.cuda.engine import CudaEngine
from polarvec_encoder.cuda.operators import Gelu
from polarvec_encoder.cuda.tuning import Tuning
from polarvec_encoder.engine import encode_all
from scale import Scale


def run(scale: Scale, earlier: dict[str, Any]) -> dict[str, Any]:
    """Measure the default engine fully, and its variants at two lengths."""
    ceiling = earlier.get("products", {}).get("sustained", {}).get("tflops")
    precision = scale.precisions[1]
    engine = make_engine(scale, precision, "tanh")
    say(f"  {engine.description}")
    found: dict[str, Any] = {"description": engine.description, "rows": [], "variants": {}}
    for length in scale.lengths:
        found["rows"].append(_row(scale, engine, length, ceiling))
        say(f"  {found['rows'][-1]}; {clocks()}")
    found["latency_ms"] = {tokens: _latency(scale, engine, tokens) for tokens in (16, 128, 512)}
    say(f"  one text, ms: {found['latency_ms']}")
    if not scale.dry:
        found["replay_ms"] = _guarded(partial(_replays_ms, scale, engine))
        say(f"  graph alone, ms: {found['replay_ms']}")
        found["kernels"] = _guarded(partial(_profile, scale, engine))
    del engine
    for name, (kind, gelu, tuning) in _variants(scale).items():
        found["variants"][name] = _guarded(partial(_variant, scale, kind, gelu, tuning))
        say(f"  {name}: {found['variants'][name]}")
    return found


def _guarded(measure: Callable[[], object]) -> object:
    """What `measure` finds, or why it found nothing: the rows measured before are worth more."""
    try:
        return measure()
    except Exception as error:
        say(f"  failed: {reason_of(error)}")
        return {"error": reason_of(error)}


def _row(scale: Scale, engine: CudaEngine, length: int, ceiling: float | None) -> dict[str, Any]:
    rate = tokens_per_s(engine, _batches(scale, length), scale.short_s)
    tflops = rate * scale.flops(length) / 1e12
    share = tflops / ceiling if ceiling else None
    return {"length": length, "tokens_per_s": rate, "texts_per_s": rate / length, "tflops": tflops, "share": share}


def _batches(scale: Scale, length: int) -> list[PackedBatch]:
    """Batches of about four passes."""
    texts = max(1, 4 * scale.pass_tokens // length)
    return [random_batch(scale, [length] * texts, seed=seed) for seed in range(2)]


def _latency(scale: Scale, engine: CudaEngine, tokens: int) -> dict[str, float]:
    """Milliseconds from handing one text over to holding its vector, packing and both copies included."""
    batch, times = random_batch(scale, [tokens], seed=1), []
    for turn in range(10 if scale.dry else 500):
        began = time.perf_counter()
        encode_all(engine, batch)
        if turn >= 3:
            times.append((time.perf_counter() - began) * 1e3)
    times.sort()
    return {"p50": statistics.median(times), "p99": times[int(len(times) * 0.99)]}


def _replays_ms(scale: Scale, engine: CudaEngine) -> dict[int, float]:
    graphs = engine._runner._graphs  # type: ignore[attr-defined]
    with torch.inference_mode():
        return {
            tokens: 1e3 * seconds_of(graphs[0, tokens].replay, scale.device, scale.short_s / 5)
            for tokens in (128, 1024, scale.pass_tokens)
        }


def _profile(scale: Scale, engine: CudaEngine) -> list[dict[str, Any]]:
    """Kernels of one full pass by time: GELU must not show as a kernel of its own beside the product."""
    batch = random_batch(scale, [128] * (scale.pass_tokens // 128), seed=1)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        encode_all(engine, batch)
        torch.cuda.synchronize()
    kernels = [
        {"name": event.key[:90], "count": event.count, "us": event.device_time_total}
        for event in profile.key_averages()
        if event.device_time_total
    ]
    kernels.sort(key=lambda kernel: -float(kernel["us"]))
    total = sum(kernel["us"] for kernel in kernels)
    for kernel in kernels[:14]:
        say(f"  {kernel['us'] / total:6.1%} {kernel['count']:4} x {kernel['name']}")
    return kernels[:30]


def _variants(scale: Scale) -> dict[str, tuple[str, Gelu, Tuning]]:
    tokens = scale.pass_tokens
    bf16 = {"precision": "bf16", "gelu": "tanh"}
    variants: dict[str, tuple[str, Gelu, Tuning]] = {
        "bf16 erf": ("bf16", "erf", Tuning(pass_tokens=tokens)),
        "residual in product": ("bf16", "tanh", Tuning(pass_tokens=tokens, residual_in_product=True)),
        "fp16": ("fp16", "tanh", Tuning(pass_tokens=tokens)),
        "fp8": ("fp8", "tanh", Tuning(pass_tokens=tokens)),
        "half passes": (bf16["precision"], "tanh", Tuning(pass_tokens=tokens // 2)),
        "double passes": (bf16["precision"], "tanh", Tuning(pass_tokens=2 * tokens)),
        "sleeping wait": ("bf16", "tanh", Tuning(pass_tokens=tokens, spin=False)),
    }
    return variants


def _variant(scale: Scale, precision: str, gelu: Gelu, tuning: Tuning) -> dict[str, float]:
    engine = make_engine(scale, precision, gelu, tuning)
    found = {
        f"tokens_per_s at {length}": tokens_per_s(engine, _batches(scale, length), scale.short_s / 2)
        for length in (128, 512)
    }
    return found | {"p50_ms of 16 tokens": _latency(scale, engine, 16)["p50"]}
