"""Attention of the single rows that the last layer needs: one program a text and head, bound by reading keys once."""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

_LOG2_E = tl.constexpr(1.4426950408889634)
_LOWEST = tl.constexpr(-1e30)


@triton.jit
def attend_picked_kernel(
    query: tl.tensor,
    key_value: tl.tensor,
    picks: tl.tensor,
    starts: tl.tensor,
    ends: tl.tensor,
    out: tl.tensor,
    COLUMNS: tl.constexpr,
    HEAD: tl.constexpr,
    KEYS: tl.constexpr,
) -> None:
    """Compute HEAD columns of one row of `out` (P, COLUMNS) from `key_value` (T, 2 * COLUMNS)."""
    text = tl.program_id(0)
    column = tl.program_id(1) * HEAD + tl.arange(0, HEAD)
    pick = tl.load(picks + text)
    # No text: the loop runs over nothing and zeros are written.
    first = tl.load(starts + pick, pick >= 0, 0)
    last = tl.load(ends + pick, pick >= 0, 0)
    asked = tl.load(query + text * COLUMNS + column).to(tl.float32)
    best = tl.full([1], _LOWEST, tl.float32)
    total = tl.zeros([1], tl.float32)
    mixed = tl.zeros([HEAD], tl.float32)
    for step in range(first, last, KEYS):
        key = step + tl.arange(0, KEYS)
        exists = key < last
        place = key_value + key[:, None] * (2 * COLUMNS) + column[None, :]
        keys = tl.load(place, exists[:, None], 0.0).to(tl.float32)
        score = tl.where(exists, tl.sum(keys * asked[None, :], 1), float("-inf")) * _LOG2_E
        higher = tl.maximum(best, tl.max(score, 0))
        weight = tl.exp2(score - higher)
        shrink = tl.exp2(best - higher)
        values = tl.load(place + COLUMNS, exists[:, None], 0.0).to(tl.float32)
        mixed = mixed * shrink + tl.sum(values * weight[:, None], 0)
        total = total * shrink + tl.sum(weight, 0)
        best = higher
    mixed = mixed / tl.where(total > 0.0, total, 1.0)
    tl.store(out + text * COLUMNS + column, mixed.to(out.dtype.element_ty))


def attend_picked(
    query: Tensor, key_value: Tensor, picks: Tensor, starts: Tensor, ends: Tensor, heads: int, keys: int, warps: int
) -> Tensor:
    """Launch; see `operators.Operators.attend_picked`."""
    texts, columns = query.shape
    out = query.new_empty((texts, columns))
    attend_picked_kernel[(texts, heads)](
        query,
        key_value,
        picks,
        starts,
        ends,
        out,
        COLUMNS=columns,
        HEAD=columns // heads,
        KEYS=keys,
        num_warps=warps,
    )
    return out
