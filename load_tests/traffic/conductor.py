"""Leads a run: prepares texts and references, orders stretch after stretch from all processes, gathers samples."""

from __future__ import annotations

import math
import time
from dataclasses import astuple
from typing import Any

import gevent
from gevent.event import Event
from load_report.phase_rows import phase_row
from locust.env import Environment
from locust.runners import MasterRunner
from polarvec import Client, Model

from traffic.arrivals import Phase
from traffic.pools import build_pools
from traffic.references import References
from traffic.samples import Samples
from traffic.scenario import Scenario
from traffic.server_watch import ServerWatch
from traffic.shapes import Stretch
from traffic.stretch import Order, orders

_PROBE_TIMEOUT_S = 60.0
# Between the order and the first arrival: time for the order to reach every process.
_LEAD_S = 0.3
_PATIENCE_S = 30.0
# The gateway's counters are half a second behind.
_METRICS_LAG_S = 1.0


class Conductor:
    """In the master, or in the only process; the load itself is made by `LoadProcess`es."""

    def __init__(self, environment: Environment, scenario: Scenario, watch: ServerWatch) -> None:
        """Leads nothing yet."""
        self._environment, self.scenario, self.watch = environment, scenario, watch
        self._runner = environment.runner
        self.samples = Samples()
        self.phases: list[dict[str, Any]] = []
        self.problems: list[str] = []
        self.model: Model | None = None
        self.texts: list[dict[str, Any]] = []
        self.ended = False
        self.process_count = 1
        self._began_s = 0.0
        self._waiting: set[str] = set()
        self._all_done = Event()

    def run(self, host: str, expected_processes: int) -> None:
        """The whole run."""
        watcher = None
        try:
            texts = self._prepare(host)
            while len(self._processes()) < expected_processes:
                gevent.sleep(0.1)
            self.process_count = len(self._processes())
            self._tell_all("polarvec_prepare", texts, _PROBE_TIMEOUT_S)
            gevent.sleep(_METRICS_LAG_S)  # The references are no part of what is counted.
            self._began_s = time.monotonic()
            watcher = gevent.spawn(self.watch.run, self._second)
            self._play()
            gevent.sleep(_METRICS_LAG_S)
            self.watch.sample(self._second())
        except Exception as error:
            self.problems.append(f"the run could not be made: {type(error).__name__}: {error}")
        finally:
            if watcher is not None:
                watcher.kill()
            self.ended = True

    def note_done(self, process: str, plain: dict[str, Any]) -> None:
        """A process has done what it was told; its last samples come with the message."""
        self.samples.merge(Samples.from_plain(plain))
        self._waiting.discard(process)
        if not self._waiting:
            self._all_done.set()

    def _play(self) -> None:
        shape = self.scenario.phases()
        stretch = next(shape, None)
        while stretch is not None:
            rows = self._offer(stretch)
            try:
                stretch = shape.send(rows)
            except StopIteration:
                stretch = None

    def _offer(self, stretch: Stretch) -> list[dict[str, Any]]:
        """Has all processes offer it, and gives the rows of its phases."""
        start_s = math.ceil(self._second() + _LEAD_S)  # At a whole second, so that seconds belong to one phase.
        lead_s = start_s - self._second()
        content = {"phases": [list(astuple(phase)) for phase in stretch], "start_s": start_s, "lead_s": lead_s}
        length_s = sum(phase.seconds for phase in stretch)
        rows = []
        try:
            self._tell_all("polarvec_stretch", content, lead_s + length_s + self.scenario.call_timeout_s + _PATIENCE_S)
        finally:  # Also of a run that is stopped: the phases that it had come through, and what there is of the last.
            for order in orders(stretch, start_s, self._began_s + start_s):
                if phase := self._measured(order):
                    rows.append(phase_row(phase, order.start_s, self.samples, list(self.scenario.workload.kinds)))
                    print(_line(rows[-1]), flush=True)
            self.phases += rows
        return rows

    def _measured(self, order: Order) -> Phase | None:
        """The phase, or the whole seconds of it of which the processes have told; None before the first of these."""
        if order.ends_s <= time.monotonic():
            return order.phase
        # The last second that is known of was not over when it was told of.
        seconds = min(self.samples.last_second, math.floor(self._second())) - order.start_s
        return order.phase.until(seconds) if seconds >= 1 else None

    def _prepare(self, host: str) -> dict[str, Any]:
        """Texts and vectors, as one message for all processes."""
        scenario = self.scenario
        with Client(host, timeout_s=_PROBE_TIMEOUT_S) as client:
            model = self.model = client.model()
            pools = build_pools(
                scenario.spec,
                scenario.seed,
                lambda texts: [each.token_count for each in client.tokenize(texts, input_type="raw")],
                model.max_token_count,
            )
            wanted = {(kind.input_type, kind.pool) for kind in scenario.workload.kinds.values()}
            references = References(model.fingerprint)
            if scenario.references is not None and scenario.references.exists():
                keys = [(input_type, text) for input_type, pool in wanted for text in pools[pool]]
                references.load(scenario.references, keys)
            for input_type, pool in sorted(wanted):
                # Long before the first call on a slow machine, which would look like a hang.
                print(f"embedding {len(pools[pool])} texts of {pool} as references", flush=True)
                references.learn(client, input_type, pools[pool])
        if scenario.references is not None:
            references.save(scenario.references)
        self.texts = [_text_row(pool, input_type, pools[pool], references) for input_type, pool in sorted(wanted)]
        return {
            "pools": pools,
            "fingerprint": model.fingerprint,
            "vectors": [[kind, pool, references.rows(kind, pools[pool]).tobytes()] for kind, pool in sorted(wanted)],
        }

    def _processes(self) -> list[str]:
        if isinstance(self._runner, MasterRunner):
            return [client.id for client in self._runner.clients.ready + self._runner.clients.running]
        return ["local"]

    def _tell_all(self, message: str, content: dict[str, Any], patience_s: float) -> None:
        """Sends it to every process, each with its share, and waits until all have done it."""
        processes = self._processes()
        if len(processes) < self.process_count:
            raise RuntimeError(f"{self.process_count - len(processes)} of {self.process_count} load processes are gone")
        self._waiting = set(processes)
        self._all_done.clear()
        for share, process in enumerate(processes):
            self._runner.send_message(message, {**content, "share": share, "shares": len(processes)}, process)
        ends_s = time.monotonic() + patience_s
        while not self._all_done.wait(1.0):
            lost = self._waiting - set(self._processes())
            if lost or time.monotonic() > ends_s:
                raise RuntimeError(f"{len(lost or self._waiting)} of {len(processes)} load processes went silent")

    def _second(self) -> float:
        return time.monotonic() - self._began_s


def _text_row(pool: str, input_type: str, texts: list[str], references: References) -> dict[str, Any]:
    counts = sorted(references.token_counts[input_type, text] for text in texts)
    return {
        "pool": pool,
        "input_type": input_type,
        "texts": len(counts),
        "min_tokens": counts[0],
        "median_tokens": counts[len(counts) // 2],
        "max_tokens": counts[-1],
    }


def _line(row: dict[str, Any]) -> str:
    total = row["total"]
    late = {kind: cells["p99_ms"] for kind, cells in row["kinds"].items()}
    p99 = ", ".join(f"{kind} {'not answered' if ms is None else f'{ms:,.0f} ms'}" for kind, ms in late.items())
    failed = f", {total['failure_ratio']:.1%} failed" if total["failure_ratio"] else ""
    return f"{row['name']:>10}: offered {total['offered_rate']:.1f}/s, good {total['goodput']:.1f}/s, p99 {p99}{failed}"


def phase_of(fields: list[Any]) -> Phase:
    """Reads a phase out of an order."""
    return Phase(*fields)
