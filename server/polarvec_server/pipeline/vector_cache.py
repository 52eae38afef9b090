"""Keeps the vectors of one model that were asked for last, within a budget of bytes."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
from cachetools import LRUCache
from numpy.typing import NDArray

_KEY_BYTES = 32
# What an entry costs beside its key and its numbers: two objects of bytes, a place in the dict and one in the order.
# Measured with tracemalloc: 170 to 241, by how full the tables are.
_OVERHEAD_BYTES = 240


class VectorCache:
    """Pooled float32 vectors by token ids, of one worker and one model; the least recently used goes first.

    A key is a digest of the token ids, so that the ids of a long text (32 KiB for 8,192 tokens) cost no more than
    those of a short one. It has 256 bits: nobody makes two texts share one.
    """

    def __init__(self, fingerprint: str, dimensions: int, budget_bytes: int) -> None:
        """Starts empty.

        Args:
            fingerprint: Names the model's embedding space; part of every key.
            dimensions: D.
            budget_bytes: Most bytes kept, with keys and overhead; less than one entry keeps nothing.
        """
        self._space = hashlib.blake2b(fingerprint.encode(), digest_size=32).digest()
        self.entry_bytes = entry_bytes(dimensions)
        # All entries are of one size, so the budget of bytes is one of entries.
        self._max_entries = budget_bytes // self.entry_bytes
        self._vectors: LRUCache[bytes, bytes] = LRUCache(self._max_entries)
        self.evictions = 0
        # Grows when what was computed before must not be served any more.
        self.generation = 0

    @property
    def entry_count(self) -> int:
        """Vectors kept."""
        return len(self._vectors)

    @property
    def byte_count(self) -> int:
        """Bytes kept, with keys and overhead."""
        return len(self._vectors) * self.entry_bytes

    def get(self, token_ids: bytes) -> NDArray[np.float32] | None:
        """Returns the (D,) float32 vector of a text, given as the bytes of its int32 token ids; None if unknown."""
        data = self._vectors.get(self._key(token_ids))
        return None if data is None else np.frombuffer(data, np.float32)

    def put(self, texts: Sequence[bytes], vectors: NDArray[np.float32], generation: int) -> None:
        """Keeps vectors, unless the cache was cleared since they were begun.

        Args:
            texts: Token ids of N texts, as for `get`.
            vectors: (N, D) float32; rows that are not finite, or all zero, are left out.
            generation: `generation` when the computation began.
        """
        if generation != self.generation or not self._max_entries:
            return
        # In float64: the squares of large float32 numbers overflow.
        squares = np.einsum("nd,nd->n", vectors, vectors, dtype=np.float64)
        for row in np.flatnonzero(np.isfinite(squares) & (squares > 0)).tolist():
            key = self._key(texts[row])
            if len(self._vectors) >= self._max_entries and key not in self._vectors:
                self.evictions += 1
            self._vectors[key] = vectors[row].tobytes()

    def clear(self) -> None:
        """Forgets everything, what is being computed now included."""
        self._vectors.clear()
        self.generation += 1

    def _key(self, token_ids: bytes) -> bytes:
        return hashlib.blake2b(token_ids, digest_size=_KEY_BYTES, key=self._space).digest()


def entry_bytes(dimensions: int) -> int:
    """Returns what one vector costs, all told."""
    return _KEY_BYTES + 4 * dimensions + _OVERHEAD_BYTES
