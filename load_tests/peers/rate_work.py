"""The texts of the comparison at the same arrival rates, with their tokens and the vectors that are right."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from arrivals import Kind
from catalogue import Subject
from reference import reference_vectors
from texts import Work, faq, make_work
from tokenizers import Tokenizer


@dataclass(frozen=True, slots=True)
class RateWork:
    """Questions and documents."""

    texts: Mapping[Kind, list[str]]
    """Without prompts."""
    token_counts: Mapping[Kind, list[int]]
    """As the model sees them: prompt and special tokens included."""
    prompts: Mapping[Kind, str]
    references: Mapping[Kind, np.ndarray]
    """(N, D) float32, unit length."""
    tokenizer_file: Path

    def write(self, folder: Path) -> dict:
        """Writes texts and vectors into a folder for the load generator; returns what it has to be told."""
        texts = folder / "texts.json"
        texts.write_text(json.dumps(self.texts))
        files = {kind: folder / f"{kind}.npy" for kind in self.references}
        for kind, file in files.items():
            np.save(file, self.references[kind])
        told = {"texts": str(texts), "references": {kind: str(file) for kind, file in files.items()}}
        return told | {"prompts": dict(self.prompts), "tokenizer_file": str(self.tokenizer_file)}


def make_rate_work(subject: Subject, folder: Path, seed: int, threads: int, lock: AbstractContextManager) -> RateWork:
    """Reads the questions, draws the documents as `make bench-peers` does, and lets transformers embed both."""
    work = make_work(folder, subject.texts, subject.max_tokens, seed)
    questions, _ = faq()
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    counts = [len(tokenizer.encode(work.query_prompt + question).ids) for question in questions]
    # The questions in the place of the documents, with the prompt of a query.
    asked = replace(work, documents=questions, document_prompt=work.query_prompt, token_counts=counts)
    return RateWork(
        texts={"query": questions, "document": work.documents},
        token_counts={"query": counts, "document": work.token_counts},
        prompts={"query": work.query_prompt, "document": work.document_prompt},
        references={
            "query": _vectors(subject, folder, asked, threads, lock),
            "document": _vectors(subject, folder, work, threads, lock),
        },
        tokenizer_file=folder / "tokenizer.json",
    )


def _vectors(subject: Subject, folder: Path, work: Work, threads: int, lock: AbstractContextManager) -> np.ndarray:
    return reference_vectors(subject, folder, work, threads, lock)[: len(work.documents)]
