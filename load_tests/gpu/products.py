"""Part `products`: what the matrix library reaches on the four products of a layer, shortly and for a long time."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch
from measuring import clocks, reason_of, say, seconds_of, synchronize
from scale import Scale
from torch.nn import functional


def run(scale: Scale, earlier: dict[str, Any]) -> dict[str, Any]:
    """Measure every shape and variant shortly, then the four shapes of the pass size in turn for `seconds`."""
    shortly = {}
    for tokens in scale.product_tokens:
        rates = {}
        for name, (n, k) in scale.products.items():
            for variant, work in _variants(scale, tokens, n, k).items():
                rates[f"{name} {variant}"] = 2 * tokens * n * k / _seconds(work, scale) / 1e12
        shortly[tokens] = rates
        say(f"  T={tokens}: " + ", ".join(f"{name} {rate:.0f}" for name, rate in rates.items()) + " TFLOP/s")
    sustained = _sustained(scale)
    say(f"  sustained {scale.seconds:.0f} s: {sustained['tflops']:.1f} TFLOP/s; {sustained['clocks']}")
    try:
        fp8: dict[str, Any] = {} if scale.dry else _fp8(scale)
    except Exception as error:
        fp8 = {"error": reason_of(error)}
        say(f"  fp8 failed: {fp8['error']}")
    return {"tflops_shortly": shortly, "sustained": sustained, "fp8_tflops": fp8}


def _seconds(work: Callable[[], object], scale: Scale) -> float:
    return seconds_of(work, scale.device, scale.short_s / 10)


def _variants(scale: Scale, tokens: int, n: int, k: int) -> dict[str, Callable[[], object]]:
    dtype = torch.float32 if scale.dry else torch.bfloat16
    rows = torch.randn(tokens, k, device=scale.device, dtype=dtype)
    weight = torch.randn(n, k, device=scale.device, dtype=dtype) / k**0.5
    bias = torch.randn(n, device=scale.device, dtype=dtype)
    residual = torch.randn(tokens, n, device=scale.device, dtype=dtype)
    return {
        "plain": lambda: functional.linear(rows, weight),
        "bias": lambda: functional.linear(rows, weight, bias),
        "gelu": lambda: torch._addmm_activation(bias, rows, weight.t(), use_gelu=True),
        # Halved, or the sum that is added to again and again would overflow.
        "beta=1": lambda: residual.addmm_(rows, weight.t(), beta=0.5),
    }


def _sustained(scale: Scale) -> dict[str, Any]:
    """A layer's products as the engine runs them, again and again: the clocks settle, and this is the ceiling."""
    tokens = scale.pass_tokens
    work, flops = [], 0
    for name, (n, k) in scale.products.items():
        work.append(_variants(scale, tokens, n, k)[{"qkv": "bias", "ffn1": "gelu"}.get(name, "plain")])
        flops += 2 * tokens * n * k
    rounds, seconds, seen = 0, 0.0, []
    began = time.monotonic()
    while seconds < scale.seconds:
        for _ in range(50):
            for product in work:
                product()
        synchronize(scale.device)
        rounds, seconds = rounds + 50, time.monotonic() - began
        if len(seen) < seconds // 5:
            seen.append(clocks())
            say(f"  after {seconds:.0f} s: {flops * rounds / seconds / 1e12:.1f} TFLOP/s; {seen[-1]}")
    return {"tokens": tokens, "seconds": seconds, "tflops": flops * rounds / seconds / 1e12, "clocks": clocks()}


def _fp8(scale: Scale) -> dict[str, float]:
    """Row-wise scaled float8, as the engine calls it."""
    tokens, rates = scale.pass_tokens, {}
    for name, (n, k) in scale.products.items():
        rows = torch.randn(tokens, k, device=scale.device).to(torch.float8_e4m3fn)
        weight = torch.randn(n, k, device=scale.device).to(torch.float8_e4m3fn)
        row_scales, weight_scales = torch.ones(tokens, 1, device=scale.device), torch.ones(1, n, device=scale.device)

        def work(rows=rows, weight=weight, row_scales=row_scales, weight_scales=weight_scales):
            return torch._scaled_mm(
                rows, weight.t(), row_scales, weight_scales, out_dtype=torch.bfloat16, use_fast_accum=True
            )

        rates[name] = 2 * tokens * n * k / _seconds(work, scale) / 1e12
    say("  fp8: " + ", ".join(f"{name} {rate:.0f}" for name, rate in rates.items()) + " TFLOP/s")
    return rates
