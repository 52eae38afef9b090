"""Bias and GELU, and float8 rows for the product that follows: for where the matrix product cannot do it itself."""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from polarvec_encoder.cuda.kernels.rows import empty_rows, store_row
from polarvec_encoder.cuda.operators import Gelu, Rows

_SQRT_HALF = tl.constexpr(0.7071067811865476)
# x * sigmoid(2u) is 0.5 * x * (1 + tanh(u)), u = sqrt(2 / pi) * (x + 0.044715 * x^3).
_TWO_SQRT_2_OVER_PI = tl.constexpr(1.5957691216057308)


@triton.jit
def gelu_kernel(
    values: tl.tensor,
    bias: tl.tensor,
    quantized: tl.tensor,
    scales: tl.tensor,
    COLUMNS: tl.constexpr,
    BLOCK: tl.constexpr,
    TANH: tl.constexpr,
    QUANTIZE: tl.constexpr,
) -> None:
    """Compute one row: in place, or as float8 only where the next product reads nothing else."""
    row = tl.program_id(0)
    column = tl.arange(0, BLOCK)
    inside = column < COLUMNS
    place = row * COLUMNS + column
    x = tl.load(values + place, inside, 0.0).to(tl.float32) + tl.load(bias + column, inside, 0.0)
    if TANH:
        # Constant on the right: on the left, the interpreter of Triton 3.7.1 makes the product a constant too.
        exact = x * tl.sigmoid((x + 0.044715 * x * x * x) * _TWO_SQRT_2_OVER_PI)
    else:
        exact = 0.5 * x * (1.0 + tl.erf(x * _SQRT_HALF))
    store_row(exact, row, column, values, quantized, scales, COLUMNS, not QUANTIZE, QUANTIZE)


def gelu(values: Tensor, bias: Tensor, form: Gelu, quantize: bool, warps: int) -> Rows:
    """Launch; see `operators.Operators.gelu`. With `quantize` the result's `values` are not what it stands for."""
    tokens, columns = values.shape
    target = empty_rows(values, (tokens, columns), values.dtype, quantize) if quantize else Rows(values)
    gelu_kernel[(tokens,)](
        values,
        bias,
        target.quantized,
        target.scales,
        COLUMNS=columns,
        BLOCK=triton.next_power_of_2(columns),
        TANH=form == "tanh",
        QUANTIZE=quantize,
        num_warps=warps,
    )
    return Rows(values, target.quantized, target.scales)
