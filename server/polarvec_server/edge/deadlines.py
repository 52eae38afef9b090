"""When a gRPC call ends: its caller's deadline, within the server's limits; on the clock of time.monotonic."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import grpc

Context = grpc.aio.ServicerContext[Any, Any]


@dataclass(frozen=True, slots=True)
class Deadlines:
    """Seconds that a call gets whose caller sets no deadline, and the most that one gets."""

    default_s: float
    max_s: float

    def single(self, context: Context) -> float:
        """Returns when a call with one request ends."""
        left = context.time_remaining()
        return time.monotonic() + min(self.default_s if left is None else left, self.max_s)


def stream_deadline(context: Context) -> float | None:
    """Returns when a stream ends: it has a deadline only if its caller set one."""
    left = context.time_remaining()
    return None if left is None else time.monotonic() + left
