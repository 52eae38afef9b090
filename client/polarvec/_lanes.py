"""Which endpoints a bulk job has calls to, or may open one to; does no I/O itself."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from polarvec_proto.v1 import embedding_pb2 as pb

from polarvec._endpoints import Rotation
from polarvec._errors import Overloaded, PolarvecError
from polarvec._retry import backoff_s, jittered


@dataclass(frozen=True, slots=True)
class StreamEvent:
    """What a call of the job brought: an answer, or its end."""

    lane: int
    """The endpoint that the call goes to."""
    answer: pb.EmbedStreamResponse | None = None
    error: PolarvecError | None = None


class Lanes:
    """The endpoints as one job sees them: it may have one call to each, a lane."""

    def __init__(self, rotation: Rotation, *, clock: Callable[[], float] = time.monotonic) -> None:
        """Starts without a call, at the endpoint whose turn it is.

        Args:
            rotation: What is known of the endpoints from other calls.
            clock: Seconds that never go back.
        """
        self._rotation = rotation
        self._clock = clock
        first, count = rotation.choose(), rotation.endpoint_count
        self._order = [(first + step) % count for step in range(count)]
        self._failure_counts = dict.fromkeys(self._order, 0)
        self._due_s = dict.fromkeys(self._order, 0.0)
        self._open: set[int] = set()

    def usable(self) -> list[int]:
        """The endpoints that items may go to now: those with a call, and those that one may be opened to."""
        now_s = self._clock()
        due = [lane for lane in self._order if lane in self._open or self._due_s[lane] <= now_s]
        healthy = [lane for lane in due if lane in self._open or self._rotation.is_free(lane)]
        return healthy or due

    def wait_s(self) -> float:
        """Seconds until a call may be opened where none may be now; 0 if one may."""
        return max(0.0, min(self._due_s.values()) - self._clock()) if not self.usable() else 0.0

    def opened(self, lane: int) -> None:
        """A call to the endpoint is under way."""
        self._open.add(lane)

    def answered(self, lane: int) -> None:
        """The endpoint is well."""
        self._failure_counts[lane] = 0
        self._rotation.answered(lane)

    def give_up(self, lane: int) -> None:
        """The server hangs: the job goes on without it."""
        self._open.discard(lane)
        self._order.remove(lane)
        del self._due_s[lane]
        self._rotation.failed(lane)

    def failed(self, lane: int, error: PolarvecError) -> None:
        """The call to the endpoint broke; the next one waits a little, or as long as a full server says."""
        self._open.discard(lane)
        self._failure_counts[lane] += 1
        if isinstance(error, Overloaded) and error.retry_after_s is not None:
            delay_s = jittered(error.retry_after_s)
            self._rotation.refused(lane, delay_s)
        else:
            delay_s = backoff_s(self._failure_counts[lane])
            self._rotation.failed(lane)
        self._due_s[lane] = self._clock() + delay_s
