"""Every kernel launch of the GPU engine, as the operators make it, on small CPU tensors; for the scripts beside it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from polarvec_encoder.cuda.operators import Norm, Operators

F32, BF16, FP16 = torch.float32, torch.bfloat16, torch.float16


@dataclass(frozen=True, slots=True)
class Shape:
    """A model's width; the three that are known: arctic-l, e5-small and the tests' own."""

    name: str
    columns: int
    heads: int
    inner: int


ARCTIC = Shape("arctic-l", 1024, 16, 4096)
E5_SMALL = Shape("e5-small", 384, 12, 1536)
TINY = Shape("tiny", 64, 4, 128)


@dataclass(frozen=True, slots=True)
class Launch:
    """One operator on fixed inputs: the same call for the kernels and for their references."""

    name: str
    dtype: torch.dtype
    run: Callable[[Operators], Any]


# Three tiles of whole sequences: one token, two that share the first tile, one that begins there, has all of the second
# (270 keys: whole steps and a rest) and ends in the third, and two more there.
EDGES = torch.tensor([0, 1, 17, 60, 330, 341, 384])
# Kernels that work row by row need few rows.
ROWS = 24


def launches(shape: Shape, dtype: torch.dtype, quantize: bool) -> Iterator[Launch]:
    """List every operator that launches a kernel, on fresh random inputs."""
    generator = torch.Generator().manual_seed(5)

    def random(*size: int, of: torch.dtype = F32, spread: float = 1.0) -> torch.Tensor:
        return (torch.randn(size, generator=generator) * spread).to(of)

    def norm() -> Norm:
        return Norm(1 + random(columns, spread=0.1), random(columns), 1e-5)

    columns, heads = shape.columns, shape.heads
    token_ids = torch.randint(0, 50, (ROWS,), generator=generator, dtype=torch.int32)
    positions = torch.randint(0, 40, (ROWS,), generator=generator, dtype=torch.int32)
    words, places, first = random(50, columns, of=dtype), random(40, columns), norm()
    yield Launch("embed", dtype, lambda o: o.embed(token_ids, positions, words, places, first, quantize))
    values, bias, residual = random(ROWS, columns, of=dtype), random(columns), random(ROWS, columns, of=dtype)
    second = norm()
    yield Launch("normalize", dtype, lambda o: o.normalize(values, bias, residual, second, quantize, dtype))
    if not quantize:
        yield Launch("normalize-summed", dtype, lambda o: o.normalize(values, bias, None, second, False, dtype))
        yield Launch("normalize-last", dtype, lambda o: o.normalize(values, bias, residual, second, False, F32))
    inner, inner_bias = random(ROWS, shape.inner, of=dtype, spread=2.0), random(shape.inner)
    for form in ("erf", "tanh"):
        yield Launch(f"gelu-{form}", dtype, lambda o, form=form: o.gelu(inner.clone(), inner_bias, form, quantize))
    if quantize:
        return
    starts, ends = (torch.repeat_interleave(edge, EDGES.diff()).int() for edge in (EDGES[:-1], EDGES[1:]))
    picks = torch.tensor([0, 1, 17, -1, 60, 383, -1, -1], dtype=torch.int32)
    rows = int(EDGES[-1])
    qkv = random(rows, 3 * columns, of=dtype)
    yield Launch("attend", dtype, lambda o: o.attend(qkv, starts, ends, heads))
    query, key_value = random(picks.numel(), columns, of=dtype), random(rows, 2 * columns, of=dtype)
    yield Launch("attend-picked", dtype, lambda o: o.attend_picked(query, key_value, picks, starts, ends, heads))
    hidden = random(rows, columns, of=dtype)
    yield Launch("mean", dtype, lambda o: o.mean(hidden, picks, ends))
