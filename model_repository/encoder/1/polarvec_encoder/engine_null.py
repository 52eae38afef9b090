"""The engine that computes nothing: vectors drawn from a hash of the token ids, to load everything around an engine."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from polarvec_encoder.architecture import Architecture
from polarvec_encoder.batch import PackedBatch

_SEED = 0x706F6C61


class NullEngine:
    """Equal texts get equal vectors, others unrelated ones, alone or in company; see `engine.Engine`."""

    def __init__(self, architecture: Architecture) -> None:
        """Draw the numbers that the hash multiplies with; the same everywhere, so that a golden file holds."""
        random = np.random.Generator(np.random.PCG64(_SEED))
        self._dimensions = architecture.hidden
        # Multiply-shift hashing (Dietzfelbinger et al. 1997): odd factors, and the upper bits of the product.
        factors = random.integers(0, 1 << 64, architecture.max_tokens + self._dimensions, np.uint64) | np.uint64(1)
        self._of_positions, self._of_numbers = np.split(factors, [architecture.max_tokens])

    @property
    def dimensions(self) -> int:
        """D, numbers in a vector."""
        return self._dimensions

    @property
    def description(self) -> str:
        """What runs, for the log."""
        return "no engine, vectors without meaning"

    @property
    def batches_in_flight(self) -> int:
        """1: there is nothing to wait for."""
        return 1

    def encode(self, batch: PackedBatch) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
        """Draw the vectors of a batch, numbers within [-1, 1); see `engine.Engine`."""
        starts = batch.starts
        places = np.arange(batch.token_ids.size) - np.repeat(starts, batch.lengths)
        hashed = (batch.token_ids.astype(np.uint64) + np.uint64(1)) * self._of_positions[places]
        keys = np.add.reduceat(hashed, starts)
        # The upper 24 bits of a product are the digits of a float32.
        digits = (keys[:, None] * self._of_numbers) >> np.uint64(40)
        yield np.arange(starts.size), digits.astype(np.float32) * np.float32(2**-23) - np.float32(1)

    def settle(self) -> None:
        """Nothing to give back."""
