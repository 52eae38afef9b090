"""A row while it runs: loads it, checks its vectors, finds its batch size, takes its turns."""

from __future__ import annotations

import contextlib
import statistics
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import psutil
from catalogue import Row, Subject
from environments import PEERS, python_of
from peer_process import PeerProcess
from quiet import Slot
from script_process import PeerError
from texts import Work

MIN_COSINE = 0.99
_MAX_OTHERS, _TRIES = 0.05, 3
# A peer stays loaded between its turns while the machine has so much memory left.
_FREE_BYTES = 10 << 30


@dataclass(frozen=True, slots=True)
class Turn:
    """What one turn of a row measured."""

    tokens_per_s: float
    query_ms: float
    """Median time of one 16-token query."""
    cpu_s_per_mtok: float
    """CPU seconds of the peer's whole process tree, client included, for a million tokens."""
    others: float
    """Share of the cores that somebody else had meanwhile; the larger one of both measurements."""


@dataclass(slots=True)
class Standing:
    """What is known of a row."""

    row: Row
    problem: str = ""
    said: dict = field(default_factory=dict)
    cosine: float = 0.0
    batch_size: int = 0
    padding: float | None = None
    peak_bytes: int = 0
    turns: list[Turn] = field(default_factory=list)

    def median(self, measure: Callable[[Turn], float]) -> float:
        """Median over the turns."""
        return statistics.median(measure(turn) for turn in self.turns)

    @property
    def ranked(self) -> bool:
        """Whether it may be compared."""
        return not self.problem and bool(self.turns)


class Contestant:
    """One row on one model."""

    def __init__(
        self, row: Row, subject: Subject, folder: Path, work: Work, threads: int, lock: AbstractContextManager
    ) -> None:
        """Starts nothing yet.

        Args:
            row: The peer and its settings.
            subject: The model.
            folder: The model's.
            work: The texts.
            threads: The same for all rows.
            lock: Held while anything runs.
        """
        self.standing = Standing(row)
        self._row, self._subject, self._work, self._lock = row, subject, work, lock
        exports = PEERS / "models" / subject.name
        cache = exports / (row.environment or "polarvec")
        cache.mkdir(parents=True, exist_ok=True)
        self._threads = threads
        self._log = PEERS / "logs" / f"{subject.name} {row.name}.log"
        self._log.parent.mkdir(exist_ok=True)
        self._job = {
            **row.settings,
            "model": subject.name,
            "folder": str(folder),
            "pooling": subject.pooling,
            "dimensions": 0,
            "threads": threads,
            "cache": str(cache),
            "exports": str(exports),
            "max_tokens": 512,
            "callers": row.callers,
            "prompts": {"document": work.document_prompt, "query": work.query_prompt},
        }
        self._process: PeerProcess | None = None

    def qualify(self, references: np.ndarray) -> None:
        """Loads it, compares its vectors with the references (N + 1, D; the last one the query's), tunes it."""
        self._job["dimensions"] = references.shape[1]
        with self._failing(), self._lock:
            self._start()
            _, vectors = self._encode(self._row.batch_sizes[0], vectors=True)
            _, query = self._running.query(self._work.query, 1)
            self.standing.cosine = lowest_cosine(np.concatenate([vectors, query]), references)
            if not self.standing.cosine >= MIN_COSINE:  # NaN too.
                raise PeerError(f"wrong vectors: cosine {self.standing.cosine:.4f}")
            self.standing.batch_size = self._best_batch_size()
            self.standing.padding = self._running.padding(self._work.documents, self.standing.batch_size)
            if len(self._row.batch_sizes) > 1 and self.standing.padding is None:  # Counting the padding warms up, too.
                self._encode(self.standing.batch_size)
        self._leave_room()

    def turn(self) -> None:
        """Times it once; again, up to three times, if somebody else had more than 5 % of the cores meanwhile."""
        if self.standing.problem:
            return
        with self._failing(), self._lock:
            if self._process is None:
                self._start()
                self._encode(self.standing.batch_size)
            attempts: list[Turn] = []
            while len(attempts) < _TRIES and (not attempts or attempts[-1].others > _MAX_OTHERS):
                attempts.append(self._attempt())
            self.standing.turns.append(min(attempts, key=lambda attempt: attempt.others))
            self.standing.peak_bytes = max(self.standing.peak_bytes, self._running.peak_bytes())
        self._leave_room()

    def stop(self) -> None:
        """Ends its processes."""
        if self._process:
            self._process.stop()
            self._process = None

    @property
    def _running(self) -> PeerProcess:
        assert self._process is not None
        return self._process

    def _start(self) -> None:
        self._process = PeerProcess(python_of(self._row.environment), self._row.script, self._threads, self._log)
        self.standing.said = self._process.load(self._job)

    def _attempt(self) -> Turn:
        tokens = sum(self._work.token_counts)
        with Slot(self._running) as bulk:
            seconds, _ = self._encode(self.standing.batch_size)
        self._running.query(self._work.query, self._subject.query_times // 10)
        with Slot(self._running) as single:
            milliseconds, _ = self._running.query(self._work.query, self._subject.query_times)
        return Turn(
            tokens_per_s=tokens / seconds,
            query_ms=statistics.median(milliseconds),
            cpu_s_per_mtok=bulk.cpu_seconds[0] / tokens * 1e6,
            others=max(bulk.others, single.others),
        )

    def _best_batch_size(self) -> int:
        sizes = self._row.batch_sizes
        if len(sizes) == 1:
            return sizes[0]
        # Every third text by length: the same mix in a third of the time. The first pass makes primitives.
        order = np.argsort(self._work.token_counts, kind="stable")[::3]
        sample = [self._work.documents[place] for place in np.sort(order)]
        taken: dict[int, float] = {}
        for size in sizes:
            self._running.encode(sample, size)
            taken[size] = min(self._running.encode(sample, size)[0] for _ in range(2))
            if taken[size] > 1.2 * min(taken.values()):
                break  # Larger ones pad more still.
        return min(taken, key=lambda size: taken[size])

    def _encode(self, batch_size: int, vectors: bool = False) -> tuple[float, np.ndarray | None]:
        return self._running.encode(self._work.documents, batch_size, vectors)

    def _leave_room(self) -> None:
        # An idle server is not idle: Polarvec's canary alone takes 2 % of two cores.
        idle_costs = self._row.kind != "library"
        if self.standing.problem or idle_costs or psutil.virtual_memory().available < _FREE_BYTES:
            self.stop()

    @contextlib.contextmanager
    def _failing(self) -> Iterator[None]:
        try:
            yield
        except PeerError as error:
            self.standing.problem = str(error)
            self.stop()


def lowest_cosine(vectors: np.ndarray, references: np.ndarray) -> float:
    """Smallest cosine of two (N, D), row by row; NaN if there is one."""
    if vectors.shape != references.shape:
        raise PeerError(f"vectors of shape {vectors.shape} in place of {references.shape}")
    norms = np.linalg.norm(vectors, axis=1) * np.linalg.norm(references, axis=1)
    return float(np.min(np.sum(vectors * references, axis=1) / norms))
