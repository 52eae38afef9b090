"""Several packs joined into one batch: the values that stand between the Triton adapter and the engines."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from polarvec_encoder.architecture import Architecture
from polarvec_encoder.errors import RequestRefused


@dataclass(frozen=True, slots=True)
class PackedBatch:
    """The tokens of N texts one after another, without padding."""

    token_ids: NDArray[np.int32]
    """(T,), special tokens included."""
    lengths: NDArray[np.int32]
    """(N,) tokens of each text, every one at least 1; sums to T."""

    @property
    def starts(self) -> NDArray[np.int64]:
        """(N,) place of each text's first token in `token_ids`."""
        ends = np.cumsum(self.lengths, dtype=np.int64)
        return ends - self.lengths

    @classmethod
    def join(cls, batches: Sequence[PackedBatch]) -> PackedBatch:
        """Put several batches into one, in order."""
        if len(batches) == 1:
            return batches[0]
        return cls(np.concatenate([b.token_ids for b in batches]), np.concatenate([b.lengths for b in batches]))

    @classmethod
    def of_texts(cls, texts: Sequence[Sequence[int]]) -> PackedBatch:
        """Build a batch from the token ids of each text."""
        token_ids = np.array([token for text in texts for token in text], np.int32)
        return cls(token_ids, np.array([len(text) for text in texts], np.int32))


def read_pack(
    token_ids: NDArray[np.int32], lengths: NDArray[np.int32], vocabulary: int, max_tokens: int
) -> PackedBatch:
    """Check one request and copy it out of Triton's memory.

    Args:
        token_ids: [1, T] int32.
        lengths: [1, N] int32.
        vocabulary: Ids run from 0 to this, exclusive.
        max_tokens: Tokens of the longest text allowed.

    Raises:
        RequestRefused: The pack breaks the format; the text is one of a few fixed ones.
    """
    if token_ids.ndim != 2 or lengths.ndim != 2 or token_ids.shape[0] != 1 or lengths.shape[0] != 1:
        raise RequestRefused("token_ids and lengths must have the shapes [1, T] and [1, N]")
    if not lengths.size:
        raise RequestRefused("a pack needs at least one text")
    if lengths.min() < 1 or lengths.max() > max_tokens:
        raise RequestRefused("a text is empty or longer than the model allows")
    if lengths.sum(dtype=np.int64) != token_ids.size:
        raise RequestRefused("lengths do not sum to the number of token_ids")
    if token_ids.min() < 0 or token_ids.max() >= vocabulary:
        raise RequestRefused("a token id is outside the vocabulary")
    return PackedBatch(token_ids[0].astype(np.int32), lengths[0].astype(np.int32))


def positions(batch: PackedBatch, architecture: Architecture) -> NDArray[np.int32]:
    """Give every token its row in the position table, (T,), as transformers does for the model's family.

    BERT counts from 0. RoBERTa counts from the padding id + 1 and gives padding ids, also those inside a text, the
    padding id itself (`create_position_ids_from_input_ids`).
    """
    starts = batch.starts
    if architecture.skips_padding:
        counted = batch.token_ids != architecture.pad_id
        running = np.cumsum(counted, dtype=np.int64)
        before = np.concatenate([np.zeros(1, np.int64), running])[starts]
        place = (running - np.repeat(before, batch.lengths)) * counted + architecture.pad_id
    else:
        place = np.arange(batch.token_ids.size, dtype=np.int64) - np.repeat(starts, batch.lengths)
    rows: NDArray[np.int32] = place.astype(np.int32)
    return rows
