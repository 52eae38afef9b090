"""What several kernels do with one row held in registers as float32: normalize it, write it, make its place."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from polarvec_encoder.cuda.operators import FP8, FP8_MAX, LEAST_AMAX, Rows

_FP8_MAX = tl.constexpr(FP8_MAX)
_LEAST_AMAX = tl.constexpr(LEAST_AMAX)


@triton.jit
def layer_norm(
    row: tl.tensor, column: tl.tensor, gain: tl.tensor, shift: tl.tensor, eps: tl.tensor, COLUMNS: tl.constexpr
) -> tl.tensor:
    """Normalize a row; places from COLUMNS on are zero."""
    inside = column < COLUMNS
    centred = tl.where(inside, row - tl.sum(row, 0) / COLUMNS, 0.0)
    scale = tl.rsqrt(tl.sum(centred * centred, 0) / COLUMNS + eps)
    return centred * scale * tl.load(gain + column, inside, 0.0) + tl.load(shift + column, inside, 0.0)


@triton.jit
def store_row(
    exact: tl.tensor,
    row: tl.tensor,
    column: tl.tensor,
    out: tl.tensor,
    quantized: tl.tensor,
    scales: tl.tensor,
    COLUMNS: tl.constexpr,
    VALUES: tl.constexpr,
    QUANTIZE: tl.constexpr,
) -> None:
    """Write a row in the format of `out` where VALUES, and as float8 with its scale where QUANTIZE."""
    inside = column < COLUMNS
    if VALUES:
        tl.store(out + row * COLUMNS + column, exact.to(out.dtype.element_ty), inside)
    if QUANTIZE:
        amax = tl.max(tl.where(inside, tl.abs(exact), 0.0), 0)
        scale = tl.maximum(amax, _LEAST_AMAX) / _FP8_MAX
        tl.store(scales + row, scale)
        # The conversion saturates, so a quotient that rounding lifts above the largest number stays it.
        tl.store(quantized + row * COLUMNS + column, (exact / scale).to(quantized.dtype.element_ty), inside)


def empty_rows(like: Tensor, shape: tuple[int, int], dtype: torch.dtype, quantize: bool) -> Rows:
    """Make the output of a kernel that writes rows."""
    values = like.new_empty(shape, dtype=dtype)
    if not quantize:
        return Rows(values)
    return Rows(values, like.new_empty(shape, dtype=FP8), like.new_empty(shape[:1], dtype=torch.float32))
