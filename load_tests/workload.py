"""Seeded work out of real Korean questions and answers, and the vectors that every answer must agree with."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from polarvec import Client

FAQ = Path(__file__).resolve().parents[1] / "tests" / "data" / "debian-faq-ko" / "faq.jsonl"
MAX_DOCUMENTS_A_CALL = 16
# bf16 and other batch mates move a vector by less than this; another text's vector is far away.
MIN_COSINE = 0.999


class WrongVector(Exception):
    """An answer that does not belong to its text."""


class Workload:
    """What users send: the same for the same seed, whatever the server does."""

    def __init__(self, faq: Path = FAQ) -> None:
        with faq.open(encoding="utf-8") as lines:
            pairs = [json.loads(line) for line in lines]
        self.queries: list[str] = [pair["question_ko"] for pair in pairs]
        self.documents: list[str] = [pair["answer_ko"] for pair in pairs]

    def query(self, generator: random.Random) -> str:
        """One question."""
        return generator.choice(self.queries)

    def batch(self, generator: random.Random) -> list[str]:
        """1 to 16 answers, short and long ones mixed."""
        return generator.sample(self.documents, generator.randint(1, MAX_DOCUMENTS_A_CALL))


class References:
    """One vector for each text, obtained alone before the load starts."""

    def __init__(self, client: Client, workload: Workload) -> None:
        """Embeds every text by itself, one after another."""
        self._queries = {text: client.embed_queries(text, truncation="end") for text in workload.queries}
        self._documents = {text: client.embed_documents(text, truncation="end") for text in workload.documents}

    def check_query(self, text: str, vector: NDArray[np.float32]) -> None:
        """Compares (D,) with the query's reference.

        Raises:
            WrongVector: They differ.
        """
        _check([self._queries[text]], vector[np.newaxis])

    def check_documents(self, texts: Sequence[str], vectors: NDArray[np.float32]) -> None:
        """Compares (N, D) with the documents' references, row by row.

        Raises:
            WrongVector: A row differs.
        """
        _check([self._documents[text] for text in texts], vectors)


def _check(references: Sequence[NDArray[np.float32]], vectors: NDArray[np.float32]) -> None:
    expected = np.stack(references)
    if vectors.shape != expected.shape:
        raise WrongVector(f"shape {vectors.shape} in place of {expected.shape}")
    norms = np.linalg.norm(expected, axis=1) * np.linalg.norm(vectors, axis=1)
    lowest = float((np.sum(expected * vectors, axis=1) / norms).min())
    if not lowest >= MIN_COSINE:  # NaN too.
        raise WrongVector(f"cosine below {MIN_COSINE}")
