"""The integers of one pass, in one flat array that crosses to the GPU in one copy, and their names as views of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from polarvec_encoder.batch import PackedBatch
from polarvec_encoder.cuda.passes import TILE, TOKENS_PER_TEXT, Span

Array = TypeVar("Array", NDArray[np.int32], torch.Tensor)


@dataclass(frozen=True, slots=True)
class PassInputs(Generic[Array]):
    """What the forward pass reads, int32; T rows, P = T / 8 picks.

    A row knows the first row of its sequence and the one after its last, so attention needs no batch dimension and no
    greatest length: T alone fixes every shape.
    """

    token_ids: Array
    """(T,)."""
    positions: Array
    """(T,) rows of the position table."""
    starts: Array
    """(T,) first row of each row's sequence."""
    ends: Array
    """(T,) row after the last of each row's sequence."""
    picks: Array
    """(P,) first row of each text (last row for last-token pooling), then -1."""


def input_count(tokens: int) -> int:
    """Count the integers of a pass of `tokens` rows."""
    return 4 * tokens + tokens // TOKENS_PER_TEXT


def views(flat: Array, tokens: int) -> PassInputs[Array]:
    """Name the parts of a flat array of at least `input_count(tokens)` integers."""
    return PassInputs(
        token_ids=flat[:tokens],
        positions=flat[tokens : 2 * tokens],
        starts=flat[2 * tokens : 3 * tokens],
        ends=flat[3 * tokens : 4 * tokens],
        picks=flat[4 * tokens : input_count(tokens)],
    )


def lay_out(
    batch: PackedBatch, position_ids: NDArray[np.int32], span: Span, pad_id: int, pad_position: int, last: bool
) -> NDArray[np.int32]:
    """Lay one pass out.

    The rows after the last text are whole sequences too, of at most `TILE` tokens each and never across a tile: they
    are computed like texts, so that no kernel ever reads a row that nothing wrote, and no pick names them.

    Args:
        batch: The tokens.
        position_ids: (all tokens of the batch,).
        span: Which texts.
        pad_id: Stands in the rows after the last text, at position `pad_position`.
        pad_position: A row of the position table.
        last: True picks each text's last row instead of its first.
    """
    lengths = batch.lengths[span.first : span.last].astype(np.int64)
    ends = np.cumsum(lengths)
    starts, filled = ends - lengths, int(ends[-1])
    source = int(batch.lengths[: span.first].sum(dtype=np.int64))
    flat = np.empty(input_count(span.tokens), np.int32)
    inputs = views(flat, span.tokens)
    inputs.token_ids[:filled] = batch.token_ids[source : source + filled]
    inputs.positions[:filled] = position_ids[source : source + filled]
    inputs.starts[:filled] = np.repeat(starts, lengths)
    inputs.ends[:filled] = np.repeat(ends, lengths)
    padding = np.arange(filled, span.tokens)
    tile = padding // TILE * TILE
    inputs.token_ids[filled:] = pad_id
    inputs.positions[filled:] = pad_position
    inputs.starts[filled:] = np.maximum(tile, filled)
    inputs.ends[filled:] = tile + TILE
    inputs.picks[: lengths.size] = ends - 1 if last else starts
    inputs.picks[lengths.size :] = -1
    return flat
