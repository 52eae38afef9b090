"""A row at the same arrival rates: starts its server and a load generator, checks the vectors, climbs the rates."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path

from arrivals import TEXTS_A_CALL, WORKLOADS, Kind, Process, Workload, make_schedule
from catalogue import Row, Subject
from contestant import MIN_COSINE
from environments import PEERS, python_of
from goodput import Answer, Stretch
from quiet import Slot, await_quiet, quietest
from rate_work import RateWork
from script_process import PeerError, ScriptProcess

# A server counts as idle below this share of one core: Polarvec's canary takes 4 % of one.
_IDLE_SHARE, _SETTLE_S = 0.2, 20.0


@dataclass(frozen=True, slots=True)
class Load:
    """What every contestant is given alike."""

    rates: Mapping[str, Sequence[float]]
    """Calls a second for each workload, ascending."""
    seconds: float
    seed: int
    process: Process
    max_open: int
    timeout_s: float
    threads: int
    max_others: float
    """A stretch in which somebody else had a larger share of the cores is taken again."""


@dataclass(slots=True)
class RateStanding:
    """What is known of a row."""

    row: Row
    problem: str = ""
    format: str = ""
    cosine: float = 1.0
    peak_bytes: int = 0
    stretches: dict[tuple[str, float], Stretch] = field(default_factory=dict)
    """By workload and rate; what is missing was not tried after a failure."""


class RateContestant:
    """One row on one model."""

    def __init__(
        self, row: Row, subject: Subject, folder: Path, work: RateWork, load: Load, lock: AbstractContextManager
    ) -> None:
        """Starts nothing yet.

        Args:
            row: The peer, its settings and its door.
            subject: The model.
            folder: The model's.
            work: Texts and right vectors.
            load: Rates and bounds.
            lock: Held while anything runs.
        """
        self.standing = RateStanding(row)
        self._row, self._subject, self._folder, self._work = row, subject, folder, work
        self._load, self._lock = load, lock
        self._processes: list[ScriptProcess] = []

    def turn(self, number: int) -> None:
        """Starts server and generator, and climbs the rates of each workload until it fails."""
        if self.standing.problem:
            return
        try:
            with self._lock:
                self._start()
                for workload in WORKLOADS:
                    self._climb(workload, number)
        except PeerError as error:
            self.standing.problem = str(error)
        finally:
            self.stop()

    def stop(self) -> None:
        """Ends its processes."""
        while self._processes:
            self._processes.pop().stop()

    def _start(self) -> None:
        """Loads the server, then the generator; every text is embedded once and its vector checked."""
        exports = PEERS / "models" / self._subject.name
        # LitServe's server is sentence-transformers and uses its export.
        cache = exports / {"": "polarvec", "litserve": "sentence-transformers"}.get(
            self._row.environment, self._row.environment
        )
        cache.mkdir(parents=True, exist_ok=True)
        server = self._begin(python_of(self._row.environment), self._row.script, self._row.name)
        said = server.load(self._server_job(cache, exports))
        server.counts_itself = said.get("counts_itself", True)
        generator = self._begin(Path(sys.executable), "run_generator.py", f"{self._row.name} generator")
        job = {"door": self._row.settings["door"], "address": said["address"], "texts_a_call": dict(TEXTS_A_CALL)}
        job |= {"timeout_s": self._load.timeout_s, "max_open": self._load.max_open, "min_cosine": MIN_COSINE}
        generator.load(job | self._work.write(generator.folder))
        cosine = generator.ask({"do": "check"})["lowest"]
        self.standing.format, self.standing.cosine = said["format"], min(cosine, self.standing.cosine)
        if cosine < MIN_COSINE:
            raise PeerError(f"wrong vectors: cosine {cosine:.4f}")

    def _server_job(self, cache: Path, exports: Path) -> dict:
        places = {"folder": str(self._folder), "cache": str(cache), "exports": str(exports)}
        job = {**self._row.settings, **places, "model": self._subject.name, "pooling": self._subject.pooling}
        job |= {"prompts": dict(self._work.prompts), "callers": 1}
        return job | {"threads": self._load.threads, "max_tokens": 512}

    def _begin(self, python: Path, script: str, name: str) -> ScriptProcess:
        log = PEERS / "logs" / f"rates {self._subject.name} {name}.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        process = ScriptProcess(python, script, self._load.threads, log)
        self._processes.append(process)
        return process

    def _climb(self, workload: Workload, number: int) -> None:
        for rate in self._load.rates[workload.name]:
            stretch = self._quietest(workload, rate, number)
            self.standing.stretches.setdefault((workload.name, rate), Stretch()).add(stretch)
            self.standing.peak_bytes = max(self.standing.peak_bytes, self._processes[0].peak_bytes())
            if stretch.failed:
                return

    def _quietest(self, workload: Workload, rate: float, number: int) -> Stretch:
        """One stretch without somebody else's noise if that can be had, else the least noisy of some."""
        noise = self._load.max_others

        def take() -> Stretch:
            self._settle()
            return self._measured(workload, rate, number)

        return quietest(take, noise, lambda: await_quiet(noise, *self._processes))

    def _measured(self, workload: Workload, rate: float, number: int) -> Stretch:
        """One stretch; each round has arrival times of its own, the same for every row."""
        counts: dict[Kind, int] = {kind: len(texts) for kind, texts in self._work.texts.items()}
        load = self._load
        calls = make_schedule(workload, rate, load.seconds, load.seed + number, counts, load.process)
        server, generator = self._processes
        with Slot(server, generator) as slot:
            answers = generator.ask({"do": "drive", "calls": [call.as_job() for call in calls]})["answers"]
        tokens = [sum(self._work.token_counts[call.kind][place] for place in call.places) for call in calls]
        return Stretch(
            load.seconds,
            [Answer(call.kind, of, *answer) for call, of, answer in zip(calls, tokens, answers, strict=True)],
            *slot.cpu_seconds,
            slot.others,
        )

    def _settle(self) -> None:
        """Waits until the server has done, or dropped, what the last stretch left; else starts it anew."""
        server = self._processes[0]
        until = time.monotonic() + _SETTLE_S
        while time.monotonic() < until:
            before = server.cpu_seconds()
            time.sleep(0.5)
            if server.cpu_seconds() - before < 0.5 * _IDLE_SHARE:
                return
        self.stop()
        self._start()
