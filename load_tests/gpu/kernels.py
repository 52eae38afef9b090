"""Part `kernels`: every kernel against its float32 reference, its bandwidth, and attention in several block shapes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from measuring import reason_of, say, seconds_of
from polarvec_encoder.cuda.operators import Norm, Operators, Rows
from polarvec_encoder.cuda.reference import ReferenceOperators
from polarvec_encoder.cuda.tuning import Tuning
from scale import Scale
from torch import Tensor

# Relative error of attention, and of everything else.
_ATTENTION_TOLERANCE = {torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 1.5e-2}
_TOLERANCE = {torch.float32: 1e-5, torch.float16: 1e-3, torch.bfloat16: 8e-3}
_FP8_TOLERANCE = 4e-2
# (rows, keys, warps, stages)
_BLOCKS = (
    (128, 64, 4, 2), (128, 64, 4, 3), (128, 64, 4, 4), (128, 64, 8, 2), (128, 64, 8, 3), (128, 128, 8, 2),
    (128, 128, 8, 3), (128, 128, 4, 2), (128, 32, 4, 3), (64, 64, 4, 2), (64, 64, 4, 3), (64, 128, 4, 2),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Case:
    name: str
    run: Callable[[Operators], Rows | Tensor]
    bytes: int


def run(scale: Scale, earlier: dict[str, Any]) -> dict[str, Any]:
    """Check, then time."""
    found: dict[str, Any] = {"checks": [], "gb_s": {}, "warps": {}, "attention": {}}
    with torch.inference_mode():
        for dtype in (torch.bfloat16, torch.float16, torch.float32):
            for quantize in (False, True) if dtype == torch.bfloat16 else (False,):
                found["checks"] += _check(scale, dtype, quantize)
        measures = {"gb_s": _bandwidths, "warps": _warps, "attention": _attention}
        for name, measure in measures.items():
            if scale.dry and name == "warps":
                continue
            try:
                found[name] = measure(scale)
            except Exception as error:
                say(f"  {name} failed: {reason_of(error)}")
                found[name] = {"error": reason_of(error)}
    wrong = [check for check in found["checks"] if not check["pass"]]
    say(f"  {len(found['checks'])} checks, {len(wrong)} outside their tolerance")
    found["pass"] = not wrong
    return found


def _operators(scale: Scale, tuning: Tuning | None = None) -> Operators:
    if scale.dry:
        return ReferenceOperators()
    from polarvec_encoder.cuda.triton_operators import TritonOperators

    return TritonOperators(tuning or Tuning())


def _check(scale: Scale, dtype: torch.dtype, quantize: bool) -> list[dict[str, Any]]:
    checks = []
    references = ReferenceOperators()
    lengths = torch.tensor([1, 2, 3, 16, 127, 128, 129, 512, 106])
    for case in _cases(scale, dtype, quantize, lengths):
        expected = _exact(case.run(references))
        try:
            error = float((_exact(case.run(_operators(scale))) - expected).norm() / expected.norm())
        except Exception as raised:
            say(f"  {case.name} {dtype} failed: {reason_of(raised)}")
            error = float("nan")
        limits = _ATTENTION_TOLERANCE if case.name.startswith("attend") else _TOLERANCE
        limit = _FP8_TOLERANCE if quantize else limits[dtype]
        # NaN compares as False.
        check = {"kernel": case.name, "dtype": str(dtype), "fp8": quantize, "error": error, "pass": error <= limit}
        say(f"  {case.name} {dtype}{' to fp8' if quantize else ''}: error {error:.1e} (limit {limit:.0e})")
        checks.append(check)
    return checks


def _exact(answer: Rows | Tensor) -> Tensor:
    if isinstance(answer, Tensor):
        return answer.double()
    if answer.quantized is not None and answer.scales is not None:
        return answer.quantized.double() * answer.scales[:, None].double()
    return answer.values.double()


def bounds(lengths: Tensor, device: str) -> tuple[Tensor, Tensor]:
    """(T,) starts and ends of the rows of sequences that follow one another."""
    ends = lengths.cumsum(0)
    starts, ends = (torch.repeat_interleave(edge, lengths).int() for edge in (ends - lengths, ends))
    return starts.to(device), ends.to(device)


def _cases(scale: Scale, dtype: torch.dtype, quantize: bool, lengths: Tensor) -> list[_Case]:
    generator = torch.Generator(scale.device).manual_seed(4)

    def random(*size: int, of: torch.dtype = torch.float32) -> Tensor:
        return torch.randn(size, generator=generator, device=scale.device).to(of)

    def integers(limit: int, count: int) -> Tensor:
        drawn = torch.randint(0, limit, (count,), generator=generator, device=scale.device)
        return drawn.int()

    rows, columns, item = int(lengths.sum()), scale.columns, dtype.itemsize
    starts, ends = bounds(lengths, scale.device)
    picks = (lengths.cumsum(0) - lengths).int().to(scale.device)
    picks = torch.cat([picks, torch.full_like(picks, -1)])
    ids, places = integers(1000, rows), integers(500, rows)
    words, table = random(1000, columns, of=dtype), random(500, columns)
    norm = Norm(1 + random(columns) / 10, random(columns), 1e-5)
    values, residual, bias = random(rows, columns, of=dtype), random(rows, columns, of=dtype), random(columns)
    inner, inner_bias = random(rows, scale.inner, of=dtype), random(scale.inner)
    cell, fp8 = rows * columns, int(quantize)
    inner_bytes = rows * scale.inner * (item + (1 if quantize else item))
    cases = [
        _Case("embed", lambda o: o.embed(ids, places, words, table, norm, quantize), cell * (2 * item + 4 + fp8)),
        _Case(
            "normalize",
            lambda o: o.normalize(values, bias, residual, norm, quantize, dtype),
            cell * (3 * item + fp8),
        ),
        _Case("gelu erf", lambda o: o.gelu(inner.clone(), inner_bias, "erf", quantize), inner_bytes),
        _Case("gelu tanh", lambda o: o.gelu(inner.clone(), inner_bias, "tanh", quantize), inner_bytes),
    ]
    if quantize:
        return cases
    qkv, query = random(rows, 3 * columns, of=dtype), random(picks.numel(), columns, of=dtype)
    key_value = qkv[:, columns:].contiguous()
    return [
        *cases,
        _Case("attend", lambda o: o.attend(qkv, starts, ends, scale.heads), 4 * cell * item),
        _Case(
            "attend picked",
            lambda o: o.attend_picked(query, key_value, picks, starts, ends, scale.heads),
            2 * cell * item,
        ),
        _Case("mean", lambda o: o.mean(values, picks, ends), cell * item),
    ]


def _bandwidths(scale: Scale) -> dict[str, float]:
    """GB/s of the kernels that move more than they compute, at twice the largest pass, which no cache holds."""
    rows = 256 if scale.dry else 2 * scale.pass_tokens
    operators, rates = _operators(scale), {}
    for quantize in (False, True):
        for case in _cases(scale, torch.bfloat16, quantize, torch.full((rows // 128,), 128)):
            if case.name == "attend":
                continue
            seconds = seconds_of(lambda case=case: case.run(operators), scale.device, scale.short_s / 5)
            # Timed with the copy that keeps the GELU's input as it was: a read and a write more.
            extra = 4 * rows * scale.inner if case.name.startswith("gelu") else 0
            rates[case.name + (" to fp8" if quantize else "")] = (case.bytes + extra) / seconds / 1e9
    say("  " + ", ".join(f"{name} {rate:,.0f}" for name, rate in rates.items()) + " GB/s")
    return rates


def _warps(scale: Scale) -> dict[str, dict[int, float]]:
    """Microseconds of the row kernels by warps a program."""
    found: dict[str, dict[int, float]] = {"normalize": {}, "gelu erf": {}}
    cases = {
        case.name: case
        for case in _cases(scale, torch.bfloat16, False, torch.full((2 * scale.pass_tokens // 128,), 128))
    }
    for warps in (1, 2, 4, 8, 16):
        operators = _operators(scale, replace(Tuning(), norm_warps=warps, gelu_warps=warps))
        for name, by_warps in found.items():
            work = cases[name].run
            by_warps[warps] = 1e6 * seconds_of(lambda work=work, o=operators: work(o), scale.device, scale.short_s / 5)
    say(f"  microseconds by warps: {found}")
    return found


def _attention(scale: Scale) -> dict[str, Any]:
    """TFLOP/s of the attention kernel by text length and block shape, and the best block shape of each length."""
    rates: dict[int, dict[str, float]] = {}
    for length in scale.lengths:
        texts = max(1, scale.pass_tokens // length)
        rows = -(-texts * length // 128) * 128
        lengths = torch.tensor([length] * texts + ([rows - texts * length] if rows > texts * length else []))
        starts, ends = bounds(lengths, scale.device)
        qkv = torch.randn(rows, 3 * scale.columns, device=scale.device, dtype=torch.bfloat16)
        rates[length] = {}
        for block in _BLOCKS[: 1 if scale.dry else None]:
            names = ("attention_rows", "attention_keys", "attention_warps", "attention_stages")
            operators = _operators(scale, replace(Tuning(), **dict(zip(names, block, strict=True))))
            flops = 4 * texts * length * length * scale.columns

            def work(operators=operators, qkv=qkv, starts=starts, ends=ends):
                return operators.attend(qkv, starts, ends, scale.heads)

            name = "x".join(map(str, block))
            try:
                rates[length][name] = flops / seconds_of(work, scale.device, scale.short_s / 10) / 1e12
            except Exception as error:
                say(f"  attention {name} failed: {reason_of(error)}")
        best = max(rates[length], key=lambda name: rates[length][name], default="none")
        shown = ", ".join(f"{name} {rate:.0f}" for name, rate in rates[length].items())
        say(f"  attention of {length}: best {best}; {shown} TFLOP/s")
    return {"tflops": rates, "best": {length: max(by, key=lambda n: by[n]) for length, by in rates.items() if by}}
