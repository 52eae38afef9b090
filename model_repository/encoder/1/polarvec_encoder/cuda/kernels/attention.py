"""Packed-tile attention: one program takes a tile of consecutive rows, whatever sequences they belong to, and one head.

The keys that a tile needs run from the start of its first row's sequence to the end of its last row's. A tile inside
one sequence, which is nearly every tile of a long text, masks nothing but a last partial step; a tile that several
sequences share masks by the bounds of each row, so eight texts of 16 tokens fill one tile instead of eight. The
running maximum is that of Dao et al., https://arxiv.org/abs/2205.14135.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from polarvec_encoder.cuda.tuning import Tuning

_LOG2_E = tl.constexpr(1.4426950408889634)
# Where the running maximum begins: finite, so that a row whose first keys are all masked meets no -inf - -inf.
_LOWEST = tl.constexpr(-1e30)


@triton.jit
def attend_kernel(
    qkv: tl.tensor,
    starts: tl.tensor,
    ends: tl.tensor,
    out: tl.tensor,
    COLUMNS: tl.constexpr,
    HEAD: tl.constexpr,
    ROWS: tl.constexpr,
    KEYS: tl.constexpr,
    DOT: tl.constexpr,
) -> None:
    """Compute ROWS rows and HEAD columns of `out` (T, COLUMNS) from `qkv` (T, 3 * COLUMNS)."""
    tile = tl.program_id(0) * ROWS
    row = tile + tl.arange(0, ROWS)
    column = tl.program_id(1) * HEAD + tl.arange(0, HEAD)
    first = tl.load(starts + tile)
    last = tl.load(ends + tile + ROWS - 1)
    shared = tl.load(starts + tile + ROWS - 1) != first
    start = tl.load(starts + row)
    end = tl.load(ends + row)
    query = tl.load(qkv + row[:, None] * (3 * COLUMNS) + column[None, :])
    best = tl.full([ROWS], _LOWEST, tl.float32)
    total = tl.zeros([ROWS], tl.float32)
    mixed = tl.zeros([ROWS, HEAD], tl.float32)
    unmasked = tl.where(shared, first, first + (last - first) // KEYS * KEYS)
    for step in range(first, unmasked, KEYS):
        key = step + tl.arange(0, KEYS)
        place = qkv + key[:, None] * (3 * COLUMNS) + column[None, :]
        score = tl.dot(query, tl.trans(tl.load(place + COLUMNS)), input_precision=DOT)
        best, total, mixed, weight = _fold(score, best, total, mixed)
        value = tl.load(place + 2 * COLUMNS)
        mixed = tl.dot(weight.to(value.dtype), value, mixed, input_precision=DOT)
    for step in range(unmasked, last, KEYS):
        key = step + tl.arange(0, KEYS)
        place = qkv + key[:, None] * (3 * COLUMNS) + column[None, :]
        exists = (key < last)[:, None]
        score = tl.dot(query, tl.trans(tl.load(place + COLUMNS, exists, 0.0)), input_precision=DOT)
        mine = (key[None, :] >= start[:, None]) & (key[None, :] < end[:, None])
        best, total, mixed, weight = _fold(tl.where(mine, score, float("-inf")), best, total, mixed)
        value = tl.load(place + 2 * COLUMNS, exists, 0.0)
        mixed = tl.dot(weight.to(value.dtype), value, mixed, input_precision=DOT)
    target = out + row[:, None] * COLUMNS + column[None, :]
    tl.store(target, (mixed / total[:, None]).to(out.dtype.element_ty))


@triton.jit
def _fold(score: tl.tensor, best: tl.tensor, total: tl.tensor, mixed: tl.tensor) -> tl.tensor:
    """Bring the sums to a new running maximum; returns maximum, both sums and this step's weights."""
    higher = tl.maximum(best, tl.max(score, 1) * _LOG2_E)
    weight = tl.exp2(score * _LOG2_E - higher[:, None])
    shrink = tl.exp2(best - higher)
    return higher, total * shrink + tl.sum(weight, 1), mixed * shrink[:, None], weight


def attend(qkv: Tensor, starts: Tensor, ends: Tensor, heads: int, tuning: Tuning) -> Tensor:
    """Launch; see `operators.Operators.attend`."""
    tokens, columns = qkv.shape[0], qkv.shape[1] // 3
    exact = qkv.dtype == torch.float32
    # Exact float32 products run outside the tensor cores, and larger blocks would not fit into registers.
    rows, keys = (32, 32) if exact else (tuning.attention_rows, tuning.attention_keys)
    # At 128 columns a head four warps spill (136 bytes a thread) and three stages take 128 KiB of shared memory, of
    # which an L4 or A10 has 99 KiB for one program.
    narrow = columns // heads <= 64
    warps, stages = (
        (tuning.attention_warps, tuning.attention_stages) if narrow else (8, min(tuning.attention_stages, 2))
    )
    out = qkv.new_empty((tokens, columns))
    attend_kernel[(tokens // rows, heads)](
        qkv,
        starts,
        ends,
        out,
        COLUMNS=columns,
        HEAD=columns // heads,
        ROWS=rows,
        KEYS=keys,
        DOT="ieee" if exact else "tf32",
        num_warps=4 if exact else warps,
        num_stages=1 if exact else stages,
    )
    return out
