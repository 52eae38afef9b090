"""One process that makes load: it does what the conductor orders, and sends back what it measured."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import gevent
import numpy as np
from gevent.queue import Queue
from locust.env import Environment
from polarvec import Client

from traffic.caller import Caller
from traffic.conductor import phase_of
from traffic.open_loop import OpenLoop
from traffic.references import References
from traffic.samples import Samples
from traffic.scenario import Scenario
from traffic.stretch import Order, orders, schedule

Tell = Callable[[dict[str, Any]], None]
"""Sends samples to the conductor."""


class LoadProcess:
    """The part of a Locust worker, or of the only process, that the dispatching user works with."""

    def __init__(self, environment: Environment, tell_samples: Tell, tell_done: Tell) -> None:
        """Knows no texts yet.

        Args:
            environment: Locust's.
            tell_samples: What was measured up to now; more will come.
            tell_done: The rest, and that what was ordered is done.
        """
        self._environment, self._tell_samples, self._tell_done = environment, tell_samples, tell_done
        self.orders: Queue[dict[str, Any]] = Queue()
        self.samples = Samples()
        self._clients: list[Client] = []
        self._caller: Caller | None = None
        self._scenario: Scenario | None = None

    def prepare(self, content: dict[str, Any], scenario: Scenario, host: str) -> None:
        """Takes texts and references, and connects."""
        pools, references = content["pools"], References(content["fingerprint"])
        for input_type, pool, raw in content["vectors"]:
            rows = np.frombuffer(raw, dtype=np.float32).reshape(len(pools[pool]), -1)
            references.vectors.update(zip(((input_type, text) for text in pools[pool]), rows, strict=True))
        self.close()
        # A connection is served by one gateway worker, so several connections are needed to reach all of them.
        count = max(1, scenario.connections // content["shares"])
        self._clients = [Client(host, timeout_s=scenario.call_timeout_s) for _ in range(count)]
        self._scenario, self.samples = scenario, Samples()
        self._caller = Caller(
            self._clients,
            scenario.workload,
            pools,
            references,
            seed=scenario.seed,
            slo_ms=scenario.slo_ms,
            samples=self.samples,
            fire=self._fire,
        )
        self._tell_done(self.samples.drain())

    def offer(self, content: dict[str, Any]) -> None:
        """Offers this process's share of one stretch: all its phases, then waits for the answers still open."""
        scenario, caller = self._scenario, self._caller
        assert scenario is not None and caller is not None, "prepare() comes first"
        began_s = time.monotonic() + content["lead_s"]
        stretch = orders([phase_of(fields) for fields in content["phases"]], content["start_s"], began_s)
        share, shares = content["share"], content["shares"]
        loop = OpenLoop(caller.make, caller.drop, max(1, scenario.max_open // shares))
        gevent.sleep(max(0.0, began_s - time.monotonic()))
        booking = gevent.spawn(self._book_phases, stretch)
        loop.run(schedule(stretch, scenario.arrivals, scenario.seed, share, shares))
        booking.join()  # A phase lasts to its end, also where its last call came and was answered before.
        self._tell_done(self.samples.drain())

    def _book_phases(self, stretch: Sequence[Order]) -> None:
        """Counts the CPU by phase, and sends what there is at the end of each: a run may be stopped in a later one."""
        cpu_s = time.process_time()
        for order in stretch:
            gevent.sleep(max(0.0, order.ends_s - time.monotonic()))
            now_s = time.process_time()
            self.samples.cpu_s[order.phase.number] += now_s - cpu_s
            cpu_s = now_s
            self._tell_samples(self.samples.drain())

    def close(self) -> None:
        """Ends the connections."""
        for client in self._clients:
            client.close()
        self._clients = []

    def _fire(self, kind: str, name: str, milliseconds: float, byte_count: int, error: Exception | None) -> None:
        self._environment.events.request.fire(
            request_type=kind,
            name=name,
            response_time=milliseconds,
            response_length=byte_count,
            exception=error,
            context={},
        )
