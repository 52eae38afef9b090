"""Starts each call when it is due, whatever became of the calls before."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

import gevent
from gevent.pool import Pool

if TYPE_CHECKING:
    from traffic.stretch import Arrival, Order

    Handler = Callable[[Order, int, float], None]


class OpenLoop:
    """A dispatcher: one greenlet that sleeps until the next arrival, and one more for each open call."""

    def __init__(self, make_call: Handler, refuse: Handler, max_open: int):
        """Offers nothing yet.

        Args:
            make_call: Gets the phase, the arrival's number in it and when it was due (monotonic seconds).
            refuse: The same, for an arrival that finds `max_open` calls open: it must be counted as failed.
            max_open: The bound that keeps a server that answers nothing from filling this process.
        """
        self._make_call = make_call
        self._refuse = refuse
        self._pool = Pool(max_open)

    @property
    def open_count(self) -> int:
        """Calls without an answer."""
        return len(self._pool)

    def run(self, schedule: Iterable[Arrival]) -> None:
        """Offers the whole schedule, whatever its phases, then waits for the last answer.

        Args:
            schedule: The arrivals, in order.
        """
        for order, number, due_s in schedule:
            # Also where the next one is due already: without a turn of the hub nothing would be sent or received.
            gevent.sleep(max(0.0, due_s - time.monotonic()))
            if self._pool.full():
                self._refuse(order, number, due_s)
            else:
                self._pool.spawn(self._make_call, order, number, due_s)
        self._pool.join()
