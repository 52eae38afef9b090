"""The vectors that every row must agree with, computed once by transformers in float32 and kept under .peers/."""

from __future__ import annotations

import sys
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
from catalogue import Subject
from environments import PEERS
from peer_process import PeerProcess
from texts import Work


def reference_vectors(
    subject: Subject, folder: Path, work: Work, threads: int, lock: AbstractContextManager
) -> np.ndarray:
    """Returns (N + 1, D) float32, unit length: one row a document, and the query's as the last one.

    Raises:
        PeerError: transformers does not run here.
    """
    file = PEERS / "references" / f"{subject.name}-{work.key}.npy"
    if file.exists():
        return np.load(file)
    file.parent.mkdir(parents=True, exist_ok=True)
    (PEERS / "logs").mkdir(exist_ok=True)
    process = PeerProcess(Path(sys.executable), "run_reference.py", threads, PEERS / "logs" / "reference.log")
    prompts = {"document": work.document_prompt, "query": work.query_prompt}
    job = {"folder": str(folder), "pooling": subject.pooling, "threads": threads, "max_tokens": 512}
    try:
        with lock:
            process.load(job | {"prompts": prompts})
            _, documents = process.encode(work.documents, 1, vectors=True)
            _, query = process.query(work.query, 1)
    finally:
        process.stop()
    vectors = np.concatenate([documents, query])
    np.save(file, vectors)
    return vectors
