"""The threads that run the engine while Triton's own thread brings more.

What is brought while the engine is busy waits here and becomes one batch: the more texts are seen at once, the better
they fill the engine's rows (e5-small on two cores, batches of 11 texts 12,960 tokens a CPU second, of 45 15,220). And
a small pack (a query, as a rule), which goes first, is seen at once and not behind a batch that Triton holds back.
Whoever brings more is held past some tokens only, so that memory is bounded and the rest waits in Triton.
"""

from __future__ import annotations

import queue
import threading
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from polarvec_encoder.engine import Engine
from polarvec_encoder.job import CLOSED, Job, JoinedJobs, fail_jobs, left_to_run_alone

# About one group of the CPU engine: when so much has overtaken, the next group of the others has its turn.
_OVERTAKING_TOKENS = 1024

_Groups = Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]


class Worker(ABC):
    """Runs batches on threads of its own."""

    _room_tokens: int
    """Past so many tokens waiting, whoever brings more is held."""

    def __init__(self, engine: Engine, log: Callable[[str], None]) -> None:
        """Start the threads.

        Args:
            engine: Used by the worker only from now on.
            log: Takes a line about each failure.
        """
        self._engine, self._log = engine, log
        self._changed = threading.Condition()
        self._waiting: list[Job] = []
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="encoder", daemon=True)
        self._thread.start()

    def submit(self, jobs: Sequence[Job]) -> None:
        """Hand over a batch; returns when there is room for the next one."""
        with self._changed:
            if not self._closing:
                self._waiting += jobs
                self._changed.notify_all()
                self._changed.wait_for(self._has_room)
                return
        fail_jobs(jobs, CLOSED, self._log)

    def close(self) -> None:
        """Finish what was handed over, then end the threads."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._thread.join()

    def _has_room(self) -> bool:
        return sum(job.pack.token_ids.size for job in self._waiting) < self._room_tokens

    @abstractmethod
    def _run(self) -> None:
        """Take and run what is handed over until the worker is closed."""

    def _take_small(self) -> list[Job]:
        """Take the small packs among those that wait."""
        with self._changed:
            small = [job for job in self._waiting if job.small]
            self._waiting = [job for job in self._waiting if not job.small]
            if small:
                self._changed.notify_all()
            return small

    def _take_all(self) -> list[Job]:
        """Take everything that waits."""
        with self._changed:
            jobs, self._waiting = self._waiting, []
            self._changed.notify_all()
            return jobs


class SerialWorker(Worker):
    """For an engine that computes while it is iterated: one batch at a time, and queries pass between its groups."""

    # What the CPU engine lays out at once.
    _room_tokens = 8192

    def _run(self) -> None:
        while jobs := self._take():
            small = [job for job in jobs if job.small]
            self._encode(small)
            self._encode([job for job in jobs if not job.small], between_groups=self._overtake)

    def _take(self) -> list[Job]:
        """Wait for a batch; an empty one means the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closing)
            return self._take_all()

    def _overtake(self) -> None:
        """Run the small packs among those that wait, and those that come while they run.

        The latter would wait for a whole group; but small packs that keep coming must not leave the others waiting for
        ever.
        """
        tokens = 0
        while tokens < _OVERTAKING_TOKENS and (jobs := self._take_small()):
            self._encode(jobs)
            tokens += sum(job.pack.token_ids.size for job in jobs)

    def _encode(self, jobs: Sequence[Job], between_groups: Callable[[], None] | None = None) -> None:
        """Run some packs as one batch and answer each as soon as its texts are done."""
        if not jobs:
            return
        error: Exception | None = None
        try:
            joined = JoinedJobs(jobs, self._engine.dimensions, self._log)
            for texts, values in self._engine.encode(joined.batch):
                joined.answer(joined.collect(texts, values))
                if between_groups is not None:
                    between_groups()
            joined.check_complete()
        except Exception as caught:
            # Whatever an engine throws, the thread must live on.
            error = caught
        for job in left_to_run_alone(jobs, error, self._log):
            self._encode([job])


class OverlappingWorker(Worker):
    """For an engine that computes elsewhere: one thread starts batches, another waits for them and sends answers.

    At most `batches_in_flight` are started. Small packs are started before the rest of what waits, but not twice in a
    row, or those that keep coming would leave the rest waiting for ever. What a batch left unanswered comes back to be
    started pack by pack.
    """

    # Four passes of a GPU, or four packs of the gateway's.
    _room_tokens = 32768

    def __init__(self, engine: Engine, log: Callable[[str], None]) -> None:
        self._free = threading.Semaphore(engine.batches_in_flight)
        self._took_small = False
        self._alone: deque[Job] = deque()
        self._under_way = 0
        self._started: queue.SimpleQueue[tuple[Sequence[Job], JoinedJobs, _Groups] | None] = queue.SimpleQueue()
        self._finisher = threading.Thread(target=self._finish_all, name="encoder answers", daemon=True)
        self._finisher.start()
        super().__init__(engine, log)

    def close(self) -> None:
        """Finish what was handed over, then end the threads."""
        super().close()
        self._finisher.join()

    def _run(self) -> None:
        while True:
            # First a free place, then a batch: what cannot start yet shall wait where it can still be overtaken.
            self._free.acquire()
            jobs = self._take()
            if not jobs:
                self._started.put(None)
                return
            self._start(jobs)

    def _take(self) -> list[Job]:
        """Wait for a batch and take its small packs, or after small ones the rest; an empty one means the end.

        The end waits for what is under way, for that may come back.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._alone or (self._closing and not self._under_way))
            small = [] if self._took_small else self._take_small()
            self._took_small = bool(small)
            jobs = small or ([self._alone.popleft()] if self._alone else self._take_all())
            self._under_way += bool(jobs)
            return jobs

    def _start(self, jobs: Sequence[Job]) -> None:
        try:
            joined = JoinedJobs(jobs, self._engine.dimensions, self._log)
            groups = self._engine.encode(joined.batch)
        except Exception as error:
            self._free.release()
            self._settle(jobs, error)
        else:
            self._started.put((jobs, joined, groups))

    def _finish_all(self) -> None:
        while started := self._started.get():
            self._finish(*started)

    def _finish(self, jobs: Sequence[Job], joined: JoinedJobs, groups: _Groups) -> None:
        """Wait for the groups of a batch; answer its jobs as they are done, the last ones after the place is free."""
        last: list[int] = []
        error: Exception | None = None
        try:
            for texts, values in groups:
                done = joined.collect(texts, values)
                if joined.complete:
                    last = done
                else:
                    joined.answer(done)
            joined.check_complete()
        except Exception as caught:
            error = caught
        # Sending costs 0.1 ms a pack and more; the GPU shall have its next batch meanwhile.
        self._free.release()
        joined.answer(last)
        self._settle(jobs, error)

    def _settle(self, jobs: Sequence[Job], error: Exception | None) -> None:
        """Put back what a batch left unanswered."""
        left = left_to_run_alone(jobs, error, self._log)
        with self._changed:
            self._alone += left
            self._under_way -= 1
            self._changed.notify_all()


def make_worker(engine: Engine, log: Callable[[str], None]) -> Worker:
    """Make the worker that fits an engine."""
    return OverlappingWorker(engine, log) if engine.batches_in_flight > 1 else SerialWorker(engine, log)
