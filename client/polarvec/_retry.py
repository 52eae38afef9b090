"""When a failed call is tried again, and how long it may take in all."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass

from polarvec._errors import Overloaded, PolarvecError, Unavailable

MAX_ATTEMPTS = 4
_FIRST_BACKOFF_S = 0.1
_MAX_BACKOFF_S = 1.0
# With the backoff above about five seconds.
_RECONNECTS = 8
# Up to a fifth on top of the server's delay, so that callers who were refused together do not come back together.
_JITTER = 0.2


@dataclass(frozen=True, slots=True)
class Deadline:
    """A moment on the monotonic clock by which a call has ended."""

    at_s: float

    @classmethod
    def after(cls, timeout_s: float) -> Deadline:
        """The moment `timeout_s` from now."""
        return cls(time.monotonic() + timeout_s)

    def remaining_s(self) -> float:
        """Seconds left, at least 0."""
        return max(0.0, self.at_s - time.monotonic())


def call_delay_s(error: PolarvecError, attempt: int, deadline: Deadline) -> float | None:
    """Seconds to wait before a failed call is sent again; None if it must not be, or the wait outlasts the deadline.

    RESOURCE_EXHAUSTED is tried again after the delay in RetryInfo. So is a connection that cannot be made, some
    seconds long: gRPC's own retries are used up within milliseconds while a connection is refused, and a worker that
    is replaced is away for longer. An UNAVAILABLE that a server sent is the channel's business.

    Args:
        error: What the last attempt ended with.
        attempt: Attempts made so far, from 1.
        deadline: When the call ends.
    """
    if isinstance(error, Overloaded) and error.retry_after_s is not None:
        delay_s = jittered(error.retry_after_s)
    elif isinstance(error, Unavailable) and not error.reason and attempt <= _RECONNECTS:
        delay_s = backoff_s(attempt)
    else:
        return None
    return delay_s if delay_s < deadline.remaining_s() else None


def item_delay_s(error: PolarvecError, attempt: int) -> float | None:
    """Seconds to wait before an item of a stream is sent again; None if it must not be.

    Args:
        error: What the item's last attempt ended with.
        attempt: Attempts made so far, from 1.
    """
    overloaded = isinstance(error, Overloaded) and error.retry_after_s is not None
    if attempt >= MAX_ATTEMPTS or not (overloaded or isinstance(error, Unavailable)):
        return None
    return backoff_s(attempt) if error.retry_after_s is None else jittered(error.retry_after_s)


def backoff_s(attempt: int) -> float:
    """Seconds after the given attempt (from 1): 0.1 s to 1 s, doubled, with jitter."""
    return jittered(min(_FIRST_BACKOFF_S * 2 ** (attempt - 1), _MAX_BACKOFF_S))


def jittered(delay_s: float) -> float:
    """The delay and up to a fifth more."""
    return delay_s * (1 + random.uniform(0, _JITTER))
