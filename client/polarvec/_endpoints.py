"""Which endpoint takes the next call: in turn, past those that are in trouble; does no I/O itself."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

# An endpoint that failed is tried again after this long, doubled with each failure in a row.
_FIRST_PAUSE_S = 0.1
_MAX_PAUSE_S = 10.0


class Rotation:
    """The endpoints of one client, numbered from 0, and what is known of their state; safe for threads."""

    def __init__(self, endpoint_count: int, *, clock: Callable[[], float] = time.monotonic) -> None:
        """Starts with all of them in order.

        Args:
            endpoint_count: At least 1.
            clock: Seconds that never go back.
        """
        self.endpoint_count = endpoint_count
        self._clock = clock
        self._lock = threading.Lock()
        self._next = 0
        self._failure_counts = [0] * endpoint_count
        self._paused_until_s = [0.0] * endpoint_count

    def choose(self, *, avoid: int | None = None) -> int:
        """The endpoint of the next call; if all are paused, the one whose pause ends first.

        An endpoint whose pause is over gets one call; the others wait for what becomes of it.

        Args:
            avoid: One to leave out if there is another: that of a call which this one is to overtake.
        """
        if self.endpoint_count == 1:
            return 0
        with self._lock:
            now_s = self._clock()
            in_turn = [(self._next + step) % self.endpoint_count for step in range(self.endpoint_count)]
            free = [endpoint for endpoint in in_turn if self._paused_until_s[endpoint] <= now_s and endpoint != avoid]
            rest = [endpoint for endpoint in in_turn if endpoint != avoid]
            chosen = free[0] if free else min(rest, key=lambda endpoint: self._paused_until_s[endpoint])
            self._next = (chosen + 1) % self.endpoint_count
            if self._failure_counts[chosen]:
                self._paused_until_s[chosen] = now_s + _pause_s(self._failure_counts[chosen])
            return chosen

    def is_free(self, endpoint: int) -> bool:
        """Whether nothing speaks against a call to this endpoint."""
        return self._paused_until_s[endpoint] <= self._clock()

    def has_free(self) -> bool:
        """Whether there is an endpoint that nothing speaks against."""
        return any(map(self.is_free, range(self.endpoint_count)))

    def wait_s(self) -> float:
        """Seconds until the first pause ends, at least 0."""
        return max(0.0, min(self._paused_until_s) - self._clock())

    def answered(self, endpoint: int) -> None:
        """The endpoint is well."""
        if self._failure_counts[endpoint]:
            with self._lock:
                self._failure_counts[endpoint], self._paused_until_s[endpoint] = 0, 0.0

    def failed(self, endpoint: int) -> None:
        """The endpoint could not be reached, or cannot embed."""
        with self._lock:
            self._failure_counts[endpoint] += 1
            self._pause(endpoint, _pause_s(self._failure_counts[endpoint]))

    def refused(self, endpoint: int, retry_after_s: float) -> None:
        """The endpoint is well but has no room for so many seconds."""
        with self._lock:
            self._failure_counts[endpoint] = 0
            self._pause(endpoint, retry_after_s)

    def _pause(self, endpoint: int, pause_s: float) -> None:
        self._paused_until_s[endpoint] = max(self._paused_until_s[endpoint], self._clock() + pause_s)


def _pause_s(failure_count: int) -> float:
    # The exponent is bounded because a float is.
    return float(min(_FIRST_PAUSE_S * 2 ** min(failure_count - 1, 16), _MAX_PAUSE_S))
