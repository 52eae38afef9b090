"""The vector that each text must get: obtained before the load, and bound to the text."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from polarvec import Client

# bf16 and other batch mates move a vector by less than this; another text's vector is far away.
MIN_COSINE = 0.999
_BATCH = 32
_ALONE = 16


class WrongVector(Exception):
    """An answer that does not belong to its text."""


@dataclass(slots=True)
class References:
    """Vectors by input type and text."""

    fingerprint: str
    vectors: dict[tuple[str, str], NDArray[np.float32]] = field(default_factory=dict)
    token_counts: dict[tuple[str, str], int] = field(default_factory=dict)

    def learn(self, client: Client, input_type: str, texts: Sequence[str]) -> None:
        """Embeds what is not known yet in batches, and some of it alone as well.

        Raises:
            WrongVector: A text's vector depends on what it was sent with.
        """
        new = [text for text in dict.fromkeys(texts) if (input_type, text) not in self.vectors]
        for start in range(0, len(new), _BATCH):
            batch = new[start : start + _BATCH]
            result = client.embed_detailed(batch, input_type=input_type, truncation="end")
            for text, vector, token_count in zip(batch, result.embeddings, result.token_counts, strict=True):
                self.vectors[input_type, text] = np.asarray(vector, dtype=np.float32)
                self.token_counts[input_type, text] = token_count
        for text in new[:: max(1, len(new) // _ALONE)]:
            alone = client.embed(text, input_type=input_type, truncation="end")
            self.check(input_type, [text], alone[np.newaxis])

    def check(self, input_type: str, texts: Sequence[str], vectors: NDArray[np.float32]) -> None:
        """Compares (N, D) with the texts' references, row by row.

        Raises:
            WrongVector: A row differs.
        """
        expected = np.stack([self.vectors[input_type, text] for text in texts])
        if vectors.shape != expected.shape:
            raise WrongVector(f"shape {vectors.shape} in place of {expected.shape}")
        norms = np.linalg.norm(expected, axis=1) * np.linalg.norm(vectors, axis=1)
        with np.errstate(invalid="ignore", divide="ignore"):
            lowest = float((np.sum(expected * vectors, axis=1) / norms).min())
        if not lowest >= MIN_COSINE:  # NaN too.
            raise WrongVector(f"cosine below {MIN_COSINE}")

    def rows(self, input_type: str, texts: Sequence[str]) -> NDArray[np.float32]:
        """(N, D) float32."""
        return np.stack([self.vectors[input_type, text] for text in texts])

    def save(self, path: Path) -> None:
        """Writes them down, for a run whose server shall not have seen the texts before."""
        path.parent.mkdir(parents=True, exist_ok=True)
        keys = list(self.vectors)
        np.savez(
            path,
            fingerprint=self.fingerprint,
            digests=np.array([_digest(key) for key in keys]),
            vectors=np.stack([self.vectors[key] for key in keys]),
            token_counts=np.array([self.token_counts[key] for key in keys]),
        )

    def load(self, path: Path, wanted: Sequence[tuple[str, str]]) -> None:
        """Takes the wanted ones from a file if it is of the same fingerprint."""
        with np.load(path) as kept:
            if str(kept["fingerprint"]) != self.fingerprint:
                return
            places = {digest: place for place, digest in enumerate(kept["digests"].tolist())}
            vectors, token_counts = kept["vectors"], kept["token_counts"]
        for key in wanted:
            if (place := places.get(_digest(key))) is not None:
                self.vectors[key], self.token_counts[key] = vectors[place], int(token_counts[place])


def _digest(key: tuple[str, str]) -> str:
    return hashlib.sha256("\0".join(key).encode()).hexdigest()
