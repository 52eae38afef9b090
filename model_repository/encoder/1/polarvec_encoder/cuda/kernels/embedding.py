"""Word and position rows added and normalized: one program a token."""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from polarvec_encoder.cuda.kernels.rows import empty_rows, layer_norm, store_row
from polarvec_encoder.cuda.operators import Norm, Rows


@triton.jit
def embed_kernel(
    token_ids: tl.tensor,
    positions: tl.tensor,
    words: tl.tensor,
    places: tl.tensor,
    gain: tl.tensor,
    shift: tl.tensor,
    out: tl.tensor,
    quantized: tl.tensor,
    scales: tl.tensor,
    eps: tl.tensor,
    COLUMNS: tl.constexpr,
    BLOCK: tl.constexpr,
    QUANTIZE: tl.constexpr,
) -> None:
    """Compute one row of `out` (T, COLUMNS)."""
    row = tl.program_id(0)
    column = tl.arange(0, BLOCK)
    inside = column < COLUMNS
    # A table may hold more than 2^31 numbers.
    word = tl.load(token_ids + row).to(tl.int64) * COLUMNS
    place = tl.load(positions + row).to(tl.int64) * COLUMNS
    summed = tl.load(words + word + column, inside, 0.0).to(tl.float32) + tl.load(places + place + column, inside, 0.0)
    exact = layer_norm(summed, column, gain, shift, eps, COLUMNS)
    store_row(exact, row, column, out, quantized, scales, COLUMNS, True, QUANTIZE)


def embed(
    token_ids: Tensor, positions: Tensor, words: Tensor, places: Tensor, norm: Norm, quantize: bool, warps: int
) -> Rows:
    """Launch; see `operators.Operators.embed`."""
    tokens, columns = token_ids.numel(), words.shape[1]
    rows = empty_rows(words, (tokens, columns), words.dtype, quantize)
    embed_kernel[(tokens,)](
        token_ids,
        positions,
        words,
        places,
        norm.gain,
        norm.shift,
        rows.values,
        rows.quantized,
        rows.scales,
        norm.eps,
        COLUMNS=columns,
        BLOCK=triton.next_power_of_2(columns),
        QUANTIZE=quantize,
        num_warps=warps,
    )
    return rows
