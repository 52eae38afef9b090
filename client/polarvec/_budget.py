"""How many calls beyond the caller's own a client may make: a token bucket, for retries and for hedges."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable


class TokenBucket:
    """Each call puts a share of a token in, time may too, and each extra call takes one out; safe for threads."""

    def __init__(
        self,
        *,
        per_call: float,
        capacity: float,
        per_s: float = 0.0,
        filled: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Starts empty, or full.

        Args:
            per_call: Tokens that a call puts in: the share of extra calls in the long run.
            capacity: Tokens that it holds at most: the extra calls that may come in a burst.
            per_s: Tokens that a second puts in.
            filled: Whether it starts full.
            clock: Seconds that never go back.
        """
        self._per_call = per_call
        self._capacity = capacity
        self._per_s = per_s
        self._clock = clock
        self._tokens = capacity if filled else 0.0
        self._at_s = clock()
        self._lock = threading.Lock()

    def book_call(self) -> None:
        """A call of the caller's own begins."""
        with self._lock:
            self._tokens = min(self._capacity, self._tokens + self._per_call)

    def take(self) -> bool:
        """Whether one extra call may be made; it counts as made."""
        with self._lock:
            now_s = self._clock()
            self._tokens = min(self._capacity, self._tokens + (now_s - self._at_s) * self._per_s)
            self._at_s = now_s
            # Twenty times 0.05 is a little under 1.
            if self._tokens < 1 - 1e-9:
                return False
            self._tokens -= 1
            return True


def retry_budget() -> TokenBucket:
    """Retries of one client: a fifth of its calls and 10 a second, as in Finagle's RetryBudget, from 10 seconds' worth.

    Waiting as a server asks is thus never held back in ordinary work, and a thousand threads that all fail cannot
    double an outage.
    """
    return TokenBucket(per_call=0.2, capacity=100, per_s=10, filled=True)


def hedge_budget() -> TokenBucket:
    """Hedges of one client: never more than one call in twenty."""
    return TokenBucket(per_call=0.05, capacity=10)
