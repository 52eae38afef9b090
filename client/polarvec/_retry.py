"""When a failed call is tried again, how long it may take in all, and what it says about its endpoint."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass

from polarvec._budget import hedge_budget, retry_budget
from polarvec._endpoints import Rotation
from polarvec._errors import TLS_FAILED, DeadlineExceeded, Overloaded, PolarvecError, Unavailable

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


class CallPolicy:
    """What the calls of one client share: whose turn it is, and how many extra calls there may be."""

    def __init__(self, endpoint_count: int, *, hedge_after_s: float | None) -> None:
        """Starts without any history.

        Args:
            endpoint_count: Servers, or names of servers, that take calls.
            hedge_after_s: Seconds without an answer after which a second call may be made; None means never.
        """
        self.rotation = Rotation(endpoint_count)
        self.hedge_after_s = hedge_after_s
        self._retries = retry_budget()
        self._hedges = hedge_budget()

    def book_call(self) -> None:
        """A call of the caller's own begins."""
        self._retries.book_call()
        self._hedges.book_call()

    def may_hedge(self) -> bool:
        """Whether a second call may be made now; it counts as made."""
        return self._hedges.take()

    def book_failure(self, endpoint: int, error: PolarvecError) -> None:
        """What a failed call says about its endpoint."""
        if isinstance(error, Overloaded) and error.retry_after_s is not None:
            self.rotation.refused(endpoint, error.retry_after_s)
        elif isinstance(error, Unavailable) or (isinstance(error, DeadlineExceeded) and not error.request_id):
            self.rotation.failed(endpoint)
        else:
            self.rotation.answered(endpoint)

    def book_overtaken(self, slow: int, *, by: int) -> None:
        """What an answer to a hedge says about the server that was asked first: it may hang, so it is passed over."""
        if slow != by:
            self.rotation.failed(slow)

    def retry_delay_s(self, error: PolarvecError, attempt: int, deadline: Deadline, *, waits: bool) -> float | None:
        """Seconds to wait before a failed call is sent again; None if it must not be.

        Args:
            error: What the last attempt ended with.
            attempt: Attempts made so far, from 1.
            deadline: When the call ends.
            waits: Whether it may be sent later, and not only to another endpoint at once.
        """
        delay_s = call_delay_s(error, attempt, self.rotation)
        if delay_s is None or delay_s >= deadline.remaining_s() or (delay_s > 0 and not waits):
            return None
        return delay_s if self._retries.take() else None


def call_delay_s(error: PolarvecError, attempt: int, rotation: Rotation) -> float | None:
    """Seconds to wait before a failed call is sent again; None if another attempt would not help.

    RESOURCE_EXHAUSTED is tried again after the delay in RetryInfo. So is a connection that cannot be made, some
    seconds long: gRPC's own retries are used up within milliseconds while a connection is refused, and a worker that
    is replaced is away for longer. An UNAVAILABLE that a server sent is the channel's business, except among several
    endpoints, where the next one takes the call at once.

    Args:
        error: What the last attempt ended with.
        attempt: Attempts made so far, from 1.
        rotation: The endpoints, with that error booked.
    """
    alone = rotation.endpoint_count == 1
    another_is_free = not alone and rotation.has_free()
    if isinstance(error, Overloaded) and error.retry_after_s is not None:
        return 0.0 if another_is_free else jittered(error.retry_after_s if alone else rotation.wait_s())
    if not isinstance(error, Unavailable) or (error.reason == TLS_FAILED and not another_is_free):
        return None
    # One round is one attempt at each endpoint.
    round_number = -(-attempt // rotation.endpoint_count)
    if round_number > _RECONNECTS or (error.reason and (alone or round_number >= MAX_ATTEMPTS)):
        return None
    return 0.0 if another_is_free else backoff_s(round_number)


def another_may_answer(error: PolarvecError) -> bool:
    """Whether a second call that is under way may still bring what the first one did not."""
    return isinstance(error, (Unavailable, Overloaded, DeadlineExceeded))


def item_delay_s(error: PolarvecError, attempt: int, time_left_s: float) -> float | None:
    """Seconds to wait before an item of a stream is sent again; None if it must not be.

    Args:
        error: What the item's last attempt ended with.
        attempt: Attempts made so far, from 1.
        time_left_s: How much longer a full server may be waited for after that.
    """
    if isinstance(error, Overloaded) and error.retry_after_s is not None:
        delay_s = jittered(error.retry_after_s)
        return delay_s if attempt < MAX_ATTEMPTS or delay_s < time_left_s else None
    if attempt >= MAX_ATTEMPTS or not isinstance(error, Unavailable):
        return None
    return backoff_s(attempt) if error.retry_after_s is None else jittered(error.retry_after_s)


def backoff_s(attempt: int) -> float:
    """Seconds after the given attempt (from 1): 0.1 s to 1 s, doubled, with jitter."""
    return jittered(min(_FIRST_BACKOFF_S * 2 ** (min(attempt, 8) - 1), _MAX_BACKOFF_S))


def jittered(delay_s: float) -> float:
    """The delay and up to a fifth more."""
    return delay_s * (1 + random.uniform(0, _JITTER))
