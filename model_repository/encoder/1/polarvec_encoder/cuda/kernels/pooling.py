"""Mean pooling: one program a text and 128 columns, summed in float32."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

_BLOCK = 128
_ROWS = 32


@triton.jit
def mean_kernel(
    values: tl.tensor,
    picks: tl.tensor,
    ends: tl.tensor,
    out: tl.tensor,
    COLUMNS: tl.constexpr,
    BLOCK: tl.constexpr,
    ROWS: tl.constexpr,
) -> None:
    """Compute BLOCK columns of one row of `out` (P, COLUMNS) float32 from `values` (T, COLUMNS)."""
    text = tl.program_id(0)
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = column < COLUMNS
    pick = tl.load(picks + text)
    # No text: the loop runs over nothing and zeros are written.
    first = tl.maximum(pick, 0)
    last = tl.load(ends + first, pick >= 0, 0)
    summed = tl.zeros([BLOCK], tl.float32)
    for step in range(first, last, ROWS):
        row = step + tl.arange(0, ROWS)
        place = values + row[:, None] * COLUMNS + column[None, :]
        summed += tl.sum(tl.load(place, (row < last)[:, None] & inside[None, :], 0.0).to(tl.float32), 0)
    tl.store(out + text * COLUMNS + column, summed / tl.maximum(last - first, 1), inside)


def mean(values: Tensor, picks: Tensor, ends: Tensor) -> Tensor:
    """Launch; see `operators.Operators.mean`."""
    texts, columns = picks.numel(), values.shape[1]
    out = values.new_empty((texts, columns), dtype=torch.float32)
    mean_kernel[(texts, triton.cdiv(columns, _BLOCK))](
        values, picks, ends, out, COLUMNS=columns, BLOCK=_BLOCK, ROWS=_ROWS
    )
    return out
