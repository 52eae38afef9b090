"""What follows a product that ends a block: bias, residual and layer norm in one pass over the rows."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from polarvec_encoder.cuda.kernels.rows import empty_rows, layer_norm, store_row
from polarvec_encoder.cuda.operators import Norm, Rows


@triton.jit
def normalize_kernel(
    values: tl.tensor,
    bias: tl.tensor,
    residual: tl.tensor,
    gain: tl.tensor,
    shift: tl.tensor,
    out: tl.tensor,
    quantized: tl.tensor,
    scales: tl.tensor,
    eps: tl.tensor,
    COLUMNS: tl.constexpr,
    BLOCK: tl.constexpr,
    RESIDUAL: tl.constexpr,
    QUANTIZE: tl.constexpr,
) -> None:
    """Compute one row of `out` (T, COLUMNS)."""
    row = tl.program_id(0)
    column = tl.arange(0, BLOCK)
    inside = column < COLUMNS
    place = row * COLUMNS + column
    summed = tl.load(values + place, inside, 0.0).to(tl.float32) + tl.load(bias + column, inside, 0.0)
    if RESIDUAL:
        summed += tl.load(residual + place, inside, 0.0).to(tl.float32)
    exact = layer_norm(summed, column, gain, shift, eps, COLUMNS)
    store_row(exact, row, column, out, quantized, scales, COLUMNS, True, QUANTIZE)


def normalize(
    values: Tensor,
    bias: Tensor,
    residual: Tensor | None,
    norm: Norm,
    quantize: bool,
    out: torch.dtype,
    warps: int,
) -> Rows:
    """Launch; see `operators.Operators.normalize`."""
    tokens, columns = values.shape
    rows = empty_rows(values, (tokens, columns), out, quantize)
    normalize_kernel[(tokens,)](
        values,
        bias,
        residual,
        norm.gain,
        norm.shift,
        rows.values,
        rows.quantized,
        rows.scales,
        norm.eps,
        COLUMNS=columns,
        BLOCK=triton.next_power_of_2(columns),
        RESIDUAL=residual is not None,
        QUANTIZE=quantize,
        num_warps=warps,
    )
    return rows
