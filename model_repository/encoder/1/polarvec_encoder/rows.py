"""The arrays of one forward pass: the texts of a group copied into their rows, with the mask that keeps them apart."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from polarvec_encoder.batch import PackedBatch
from polarvec_encoder.grouping import Group

# Far below any attention score, and finite in bfloat16 too, so that a masked score never makes a NaN.
_NEVER = np.float32(-1e30)
# Single-row pooling picks this many rows at least and a multiple of it, so that few shapes occur.
_PICK_STEP = 4


@dataclass(frozen=True, slots=True)
class Rows:
    """R rows of S tokens holding k texts; flat places count through all rows."""

    token_ids: NDArray[np.int32]
    """(R, S)."""
    position_ids: NDArray[np.int32]
    """(R, S)."""
    mask: NDArray[np.float32]
    """(R, 1, S, S), or (R, 1, 1, S) where no row is shared: added to the attention scores."""
    places: NDArray[np.int32]
    """(L,) flat place of every real token, text after text."""
    lengths: NDArray[np.int32]
    """(k,) tokens of each text, in the order of `places`."""


@dataclass(frozen=True, slots=True)
class Picks:
    """The one token of each text that single-row pooling needs, arranged by row: P places a row."""

    places: NDArray[np.int32]
    """(R, P) flat places; unused ones are 0."""
    mask: NDArray[np.float32]
    """(R, 1, P, S) or (R, 1, 1, S)."""
    answers: NDArray[np.int32]
    """(k,) where each text's pick stands among the R * P."""


def fill_rows(group: Group, batch: PackedBatch, position_ids: NDArray[np.int32], pad_id: int) -> Rows:
    """Lay out one group.

    Args:
        group: Where each text goes.
        batch: The tokens.
        position_ids: (T,) of the batch.
        pad_id: Stands where no text does.
    """
    lengths = batch.lengths[group.texts]
    shift = np.cumsum(lengths, dtype=np.int64) - lengths
    steps = np.arange(int(lengths.sum(dtype=np.int64)))
    sources = np.repeat(batch.starts[group.texts] - shift, lengths) + steps
    places = np.repeat(group.rows * group.row_tokens + group.columns - shift, lengths) + steps
    shape = (group.row_count, group.row_tokens)
    token_ids = np.full(shape, pad_id, np.int32)
    token_ids.reshape(-1)[places] = batch.token_ids[sources]
    rows_positions = np.zeros(shape, np.int32)
    rows_positions.reshape(-1)[places] = position_ids[sources]
    owner = np.zeros(shape, np.int32)
    owner.reshape(-1)[places] = np.repeat(np.arange(1, lengths.size + 1), lengths)
    return Rows(token_ids, rows_positions, _mask(owner, group.shared), places.astype(np.int32), lengths)


def pick_tokens(group: Group, rows: Rows, last: bool) -> Picks:
    """Arrange the first (or last) token of each text for single-row pooling."""
    ends = np.cumsum(rows.lengths, dtype=np.int64)
    chosen = rows.places[ends - 1] if last else rows.places[ends - rows.lengths]
    texts_per_row = np.bincount(group.rows, minlength=group.row_count)
    width = -(-int(texts_per_row.max()) // _PICK_STEP) * _PICK_STEP if group.shared else 1
    first_of_row = np.cumsum(texts_per_row) - texts_per_row
    answers = group.rows * width + np.arange(group.rows.size) - first_of_row[group.rows]
    # An unused pick is its row's first token: a real one, with a mask that leaves it something to attend to.
    places = np.repeat(np.arange(group.row_count) * group.row_tokens, width).astype(np.int32)
    places[answers] = chosen
    places = places.reshape(group.row_count, width)
    mask = rows.mask
    if group.shared:
        column = places % group.row_tokens
        mask = np.take_along_axis(rows.mask, column[:, None, :, None].astype(np.int64), axis=2)
    return Picks(places, np.ascontiguousarray(mask), answers.astype(np.int32))


def _mask(owner: NDArray[np.int32], shared: bool) -> NDArray[np.float32]:
    if shared:
        # Padding (owner 0) attends to padding, so that no line of the softmax is empty.
        return np.where(owner[:, None, :, None] == owner[:, None, None, :], np.float32(0), _NEVER)
    return np.where(owner[:, None, None, :] > 0, np.float32(0), _NEVER)
