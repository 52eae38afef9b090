"""Passes from several batches, at most as many under way as there are slots; whoever waits keeps the rest moving."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from polarvec_encoder.cuda.runner import Runner
from polarvec_encoder.cuda.slots import Slot
from polarvec_encoder.job import SMALL_TOKENS


@dataclass(slots=True, eq=False)
class Pass:
    """One pass, from its integers to its vectors."""

    first: int
    """Place in the batch of its first text."""
    texts: int
    tokens: int
    inputs: NDArray[np.int32]
    slot: Slot | None = None
    vectors: NDArray[np.float32] | None = None
    error: Exception | None = None


class Pipeline:
    """Starts passes on a runner as slots become free. Any number of threads may use it."""

    def __init__(self, runner: Runner) -> None:
        self._runner = runner
        self._lock = threading.Lock()
        self._free = deque(runner.slots)
        self._small: deque[Pass] = deque()
        self._waiting: deque[Pass] = deque()
        self._under_way: deque[Pass] = deque()

    def submit(self, passes: Sequence[Pass]) -> None:
        """Queue passes and start what can be started; returns without waiting for any."""
        with self._lock:
            for one in passes:
                (self._small if one.tokens <= SMALL_TOKENS else self._waiting).append(one)
            self._start()

    def vectors_of(self, one: Pass) -> NDArray[np.float32]:
        """Wait for a submitted pass and return its (texts, D) vectors.

        Passes end in the order of their start, so the oldest is brought home first, whichever batch it belongs to, and
        the next one starts in its place: a batch can be read while an earlier one is left half read.

        Raises:
            Exception: What starting or computing this pass raised.
        """
        while True:
            with self._lock:
                if one.error is not None:
                    raise one.error
                if one.vectors is not None:
                    return one.vectors
                oldest = self._under_way[0]
                slot = oldest.slot
            if slot is not None:
                self._bring_home(oldest, slot)

    def abandon(self, passes: Sequence[Pass]) -> None:
        """Drop passes that nobody will ask for; those under way end unread."""
        dropped = {id(one) for one in passes}
        with self._lock:
            self._small = deque(one for one in self._small if id(one) not in dropped)
            self._waiting = deque(one for one in self._waiting if id(one) not in dropped)

    def _bring_home(self, oldest: Pass, slot: Slot) -> None:
        error: Exception | None = None
        try:
            # Without the lock, so that another thread can start passes meanwhile.
            self._runner.wait(slot)
        except Exception as raised:
            error = raised
        with self._lock:
            if oldest.slot is None:
                return  # another thread was faster
            self._under_way.remove(oldest)
            if error is None:
                oldest.vectors = slot.read(oldest.texts)
            oldest.error, oldest.slot = error, None
            self._free.append(slot)
            self._start()

    def _start(self) -> None:
        """Start waiting passes, small ones first, while slots are free; the lock is held."""
        while self._free and (self._small or self._waiting):
            one = (self._small or self._waiting).popleft()
            slot = self._free.popleft()
            try:
                self._runner.start(slot, one.tokens, one.inputs, one.texts)
            except Exception as raised:
                one.error = raised
                self._free.append(slot)
                continue
            one.slot = slot
            self._under_way.append(one)
