"""The protocol that every engine fulfils: packed batch in, pooled vectors out, group by group."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from polarvec_encoder.batch import PackedBatch


class Engine(Protocol):
    """Computes pooled vectors.

    One thread calls `encode`; several calls may be under way at once. Where `batches_in_flight` is 1 the same thread
    iterates; where it is more another thread may.
    """

    @property
    def dimensions(self) -> int:
        """D, numbers in a vector."""
        ...

    @property
    def description(self) -> str:
        """What runs, for the log."""
        ...

    @property
    def batches_in_flight(self) -> int:
        """Batches that may be started before the first is finished.

        1 computes while it is iterated; more: `encode` starts the work at once and iterating waits for it.
        """
        ...

    def encode(self, batch: PackedBatch) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
        """Compute the vectors of a batch and yield them as they are done, earlier texts first by and large.

        Yields:
            (k,) places of texts in the batch, and their (k, D) vectors, pooled but not normalised; every text once.
        """
        ...

    def settle(self) -> None:
        """Give back what only loading and warming up needed."""
        ...


def encode_all(engine: Engine, batch: PackedBatch) -> NDArray[np.float32]:
    """Compute all vectors of a batch, (N, D), in its order."""
    vectors = np.full((batch.lengths.size, engine.dimensions), np.nan, np.float32)
    for texts, values in engine.encode(batch):
        vectors[texts] = values
    return vectors
