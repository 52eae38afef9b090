"""The thread that runs the engine while Triton's own thread gathers the next batch.

At most one batch waits: whoever brings one is held until the worker has taken it, so that the queue stays in Triton,
where priorities and timeouts act on it. Small packs (a query, as a rule) go first, also those of the batch that waits.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from polarvec_encoder.batch import PackedBatch
from polarvec_encoder.engine import Engine

# A pack of so few tokens costs the others little when it overtakes them, and its caller is likely to be a person.
_SMALL_TOKENS = 256

_ENGINE_FAILED = "the engine failed on this batch"
_CLOSED = "the encoder is shutting down"


@dataclass(slots=True, eq=False)
class Job:
    """One request on its way through the worker; exactly one of its two calls is made, once."""

    pack: PackedBatch
    answer: Callable[[NDArray[np.float32]], None]
    """Takes the (N, D) pooled vectors."""
    fail: Callable[[str], None]
    """Takes a fixed sentence."""
    ended: bool = field(default=False, init=False)

    @property
    def small(self) -> bool:
        """True for packs that may overtake others."""
        return self.pack.token_ids.size <= _SMALL_TOKENS


class Worker:
    """Runs batches on one thread."""

    def __init__(self, engine: Engine, log: Callable[[str], None]) -> None:
        """Start the thread.

        Args:
            engine: Used by this thread only from now on.
            log: Takes a line about each failure.
        """
        self._engine, self._log = engine, log
        self._changed = threading.Condition()
        self._waiting: list[Job] = []
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="encoder", daemon=True)
        self._thread.start()

    def submit(self, jobs: Sequence[Job]) -> None:
        """Hand over a batch; returns when the worker has taken all of it."""
        with self._changed:
            self._changed.wait_for(lambda: not self._waiting)
            if self._closing:
                refused = list(jobs)
            else:
                refused = []
                self._waiting = list(jobs)
                self._changed.notify_all()
                self._changed.wait_for(lambda: not self._waiting)
        self._fail(refused, _CLOSED)

    def close(self) -> None:
        """Finish what was handed over, then end the thread."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._thread.join()

    def _run(self) -> None:
        while jobs := self._take():
            small = [job for job in jobs if job.small]
            self._encode(small)
            self._encode([job for job in jobs if not job.small], between_groups=self._overtake)

    def _take(self) -> list[Job]:
        """Wait for a batch; an empty one means the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closing)
            jobs, self._waiting = self._waiting, []
            self._changed.notify_all()
            return jobs

    def _overtake(self) -> None:
        """Run the small packs of the batch that waits."""
        with self._changed:
            small = [job for job in self._waiting if job.small]
            self._waiting = [job for job in self._waiting if not job.small]
            if small:
                self._changed.notify_all()
        self._encode(small)

    def _encode(self, jobs: Sequence[Job], between_groups: Callable[[], None] | None = None) -> None:
        """Run some packs as one batch and answer each as soon as its texts are done."""
        if not jobs:
            return
        try:
            self._encode_joined(jobs, between_groups)
        except Exception as error:
            # Whatever an engine throws, the thread must live on; the text may hold internals and stays in the log.
            self._log(f"engine failed on {len(jobs)} packs: {type(error).__name__}: {error}")
            self._fail(jobs, _ENGINE_FAILED)

    def _encode_joined(self, jobs: Sequence[Job], between_groups: Callable[[], None] | None) -> None:
        counts = np.array([job.pack.lengths.size for job in jobs])
        ends = np.cumsum(counts)
        owners = np.repeat(np.arange(len(jobs)), counts)
        left = counts.copy()
        vectors = np.empty((int(ends[-1]), self._engine.dimensions), np.float32)
        for texts, values in self._engine.encode(PackedBatch.join([job.pack for job in jobs])):
            vectors[texts] = values
            touched, done = np.unique(owners[texts], return_counts=True)
            left[touched] -= done
            for place in touched[left[touched] == 0]:
                self._answer(jobs[place], vectors[ends[place] - counts[place] : ends[place]])
            if between_groups is not None:
                between_groups()

    def _answer(self, job: Job, vectors: NDArray[np.float32]) -> None:
        job.ended = True
        try:
            job.answer(vectors)
        except Exception as error:
            # The request may be gone on Triton's side; the others of the batch are not.
            self._log(f"an answer could not be sent: {type(error).__name__}: {error}")

    def _fail(self, jobs: Sequence[Job], text: str) -> None:
        for job in jobs:
            if job.ended:
                continue
            job.ended = True
            try:
                job.fail(text)
            except Exception as error:
                self._log(f"an error could not be sent: {type(error).__name__}: {error}")
