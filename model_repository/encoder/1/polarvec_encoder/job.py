"""Requests on their way through a worker: single ones, and those that run together as one batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from polarvec_encoder.batch import PackedBatch
from polarvec_encoder.errors import EncoderError

# A pack of so few tokens costs the others little when it overtakes them, and its caller is likely to be a person.
SMALL_TOKENS = 256

_ENGINE_FAILED = "the engine failed on this batch"
_NOT_FINITE = "the engine gave a vector that is not finite"
CLOSED = "the encoder is shutting down"


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
        return self.pack.token_ids.size <= SMALL_TOKENS


class JoinedJobs:
    """Jobs that run as one batch: collects their vectors and ends each job as soon as it can."""

    def __init__(self, jobs: Sequence[Job], dimensions: int, log: Callable[[str], None]) -> None:
        """Join the packs.

        Args:
            jobs: At least one.
            dimensions: D, numbers in a vector.
            log: Takes a line about each answer that cannot be sent.
        """
        self._jobs, self._log = jobs, log
        self.batch = PackedBatch.join([job.pack for job in jobs])
        self._counts = np.array([job.pack.lengths.size for job in jobs])
        self._ends = np.cumsum(self._counts)
        self._owners = np.repeat(np.arange(len(jobs)), self._counts)
        self._left = self._counts.copy()
        self._vectors = np.empty((int(self._ends[-1]), dimensions), np.float32)

    def collect(self, texts: NDArray[np.int64], values: NDArray[np.float32]) -> list[int]:
        """Keep some vectors; returns which jobs have all of theirs now."""
        self._vectors[texts] = values
        touched, done = np.unique(self._owners[texts], return_counts=True)
        self._left[touched] -= done
        return [int(place) for place in touched[self._left[touched] == 0]]

    @property
    def complete(self) -> bool:
        """True when every vector is there."""
        return not self._left.any()

    def answer(self, places: Sequence[int]) -> None:
        """Answer these jobs, but for those with a vector that is not finite.

        Such a job stays open if it ran with others, for theirs may have spoiled it, and fails if it ran alone.
        """
        for place in places:
            job = self._jobs[place]
            vectors = self._vectors[self._ends[place] - self._counts[place] : self._ends[place]]
            if job.ended:
                continue
            if not np.isfinite(vectors).all():
                if len(self._jobs) == 1:
                    self._log(f"a pack failed alone: {_NOT_FINITE}")
                    fail_jobs([job], _NOT_FINITE, self._log)
                continue
            job.ended = True
            try:
                job.answer(vectors)
            except Exception as error:
                # The request may be gone on Triton's side; the others of the batch are not.
                self._log(f"an answer could not be sent: {type(error).__name__}: {error}")

    def check_complete(self) -> None:
        """Raise EncoderError if the engine has left out a text, which would leave its caller waiting for ever."""
        if not self.complete:
            raise EncoderError(f"the engine gave no vector for {int(self._left.sum())} texts")


def left_to_run_alone(jobs: Sequence[Job], error: Exception | None, log: Callable[[str], None]) -> Sequence[Job]:
    """Pick the jobs of a batch that did not end; each shall run again by itself, which none does twice.

    One pack may have caused it, and the others shall not pay for having come along. A single one that is left after an
    error fails here. The error's text may hold internals and stays in the log.
    """
    left = [job for job in jobs if not job.ended]
    reason = f"{type(error).__name__}: {error}" if error is not None else _NOT_FINITE
    if error is not None and len(left) == 1:
        log(f"engine failed on 1 packs: {reason}")
        fail_jobs(left, _ENGINE_FAILED, log)
        return []
    if left:
        log(f"engine failed on {len(left)} packs, each runs alone now: {reason}")
    return left


def fail_jobs(jobs: Sequence[Job], text: str, log: Callable[[str], None]) -> None:
    """End the jobs that have not ended with an error."""
    for job in jobs:
        if job.ended:
            continue
        job.ended = True
        try:
            job.fail(text)
        except Exception as error:
            log(f"an error could not be sent: {type(error).__name__}: {error}")
