"""How far a bulk job is and how fast it goes."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

_WINDOW_S = 30.0


@dataclass(frozen=True, slots=True)
class BulkProgress:
    """What a job has done so far, earlier runs included."""

    row_count: int
    """Rows of the input that are done with, bad ones included."""
    error_count: int
    """Bad rows among them."""
    token_count: int
    """Tokens embedded."""
    fraction: float | None
    """Part of the input that has been read, 0 to 1; None for standard input."""
    rows_per_s: float
    """Over the last half minute."""
    seconds_left: float | None
    """At the rate of the last half minute; None where nobody can say."""


class Pace:
    """Rates over a sliding window."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Starts empty."""
        self._clock = clock
        self._samples: deque[tuple[float, int, float]] = deque()

    def measure(self, *, row_count: int, error_count: int, token_count: int, fraction: float | None) -> BulkProgress:
        """Takes a sample and tells the rates since the oldest one in the window."""
        now_s = self._clock()
        self._samples.append((now_s, row_count, fraction or 0.0))
        while now_s - self._samples[0][0] > _WINDOW_S and len(self._samples) > 2:
            self._samples.popleft()
        begun_s, begun_count, begun_fraction = self._samples[0]
        seconds = now_s - begun_s
        part = (fraction or 0.0) - begun_fraction
        return BulkProgress(
            row_count,
            error_count,
            token_count,
            fraction,
            rows_per_s=(row_count - begun_count) / seconds if seconds > 0 else 0.0,
            seconds_left=(1.0 - fraction) * seconds / part if fraction is not None and part > 0 else None,
        )
