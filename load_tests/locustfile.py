"""Query users and document users at a fixed rate through the SDK; every answer is checked. See README.md."""

from __future__ import annotations

import itertools
import random
import sys
import time
from typing import Any

from grpc.experimental.gevent import init_gevent
from locust import User, events, task
from locust.env import Environment
from locust.runners import MasterRunner, WorkerRunner
from polarvec import CallTimings, Client, PolarvecError
from workload import References, Workload, WrongVector

init_gevent()  # After locust has patched the standard library, before the first channel.

_CALL = "gRPC"
_SERVER = "server"
_WORKLOAD = Workload()
_PROBE_TIMEOUT_S = 60.0


@events.init_command_line_parser.add_listener
def _add_options(parser: Any) -> None:
    group = parser.add_argument_group("Polarvec")
    group.add_argument("--seed", type=int, default=1, help="The same seed gives the same texts in the same order.")
    group.add_argument("--query-rate", type=float, default=5.0, help="Calls a second of each query user.")
    group.add_argument("--document-rate", type=float, default=0.5, help="Calls a second of each document user.")
    group.add_argument("--call-timeout-s", type=float, default=30.0, help="Deadline of a call.")
    group.add_argument("--max-query-p99-ms", type=float, default=1000.0, help="Over this the exit code is 1; 0: off.")
    group.add_argument("--max-document-p99-ms", type=float, default=0.0, help="Over this the exit code is 1; 0: off.")


@events.init.add_listener
@events.test_start.add_listener
def _learn_references(environment: Environment, **_: object) -> None:
    """Before the run time begins where the host is known by then, otherwise at the start of the test."""
    host = environment.host or PolarvecUser.host
    if isinstance(environment.runner, MasterRunner) or getattr(environment, "learnt_from", None) == host:
        return
    if isinstance(environment.runner, WorkerRunner) and environment.host is None:
        return  # The master tells the host later.
    try:
        with Client(host, timeout_s=_PROBE_TIMEOUT_S) as client:
            environment.references = References(client, _WORKLOAD)  # type: ignore[attr-defined]  # For the users.
    except PolarvecError as error:
        sys.exit(f"No references, no load: {error}")
    environment.learnt_from = host  # type: ignore[attr-defined]
    environment.user_numbers = itertools.count()  # type: ignore[attr-defined]


class PolarvecUser(User):
    """Calls at fixed times. A late call counts from when it was due, so that a slow server cannot hide its queue."""

    abstract = True
    host = "localhost:50051"
    rate = 1.0

    def on_start(self) -> None:
        options, environment = self.environment.parsed_options, self.environment
        number = next(environment.user_numbers)
        self.client = Client(self.host or PolarvecUser.host, timeout_s=options.call_timeout_s)
        self.references: References = environment.references
        self.generator = random.Random(f"{options.seed} {number}")
        # Users start anywhere within their period, so that they do not call all at once.
        self.due_s = time.monotonic() + self.generator.uniform(0, 1 / self.rate)
        time.sleep(max(0.0, self.due_s - time.monotonic()))

    def on_stop(self) -> None:
        self.client.close()

    def wait_time(self) -> float:
        """Seconds until the next call is due."""
        self.due_s += 1 / self.rate
        return max(0.0, self.due_s - time.monotonic())

    def report(self, name: str, error: Exception | None, byte_count: int, calls: tuple[CallTimings, ...]) -> None:
        """One row for the call, and one for each time that the server measured itself."""
        elapsed_ms = (time.monotonic() - self.due_s) * 1000
        self.fire(_CALL, name, elapsed_ms, byte_count, error)
        for timings in calls:
            for stage in ("queue_ms", "tokenize_ms", "inference_ms"):
                value = getattr(timings, stage)
                if value is not None:
                    self.fire(_SERVER, f"{name} {stage}", value, 0, None)

    def fire(self, kind: str, name: str, milliseconds: float, byte_count: int, error: Exception | None) -> None:
        """Hands one measurement to Locust."""
        self.environment.events.request.fire(
            request_type=kind,
            name=name,
            response_time=milliseconds,
            response_length=byte_count,
            exception=error,
            context={},
        )


class QueryUser(PolarvecUser):
    """Somebody at a search box: one question at a time."""

    weight = 3

    def on_start(self) -> None:
        self.rate = self.environment.parsed_options.query_rate
        super().on_start()

    @task
    def search(self) -> None:
        text = _WORKLOAD.query(self.generator)
        error: Exception | None = None
        calls: tuple[CallTimings, ...] = ()
        byte_count = 0
        try:
            result = self.client.embed_detailed(text, input_type="query", truncation="end")
            calls, byte_count = result.calls, result.embeddings.nbytes
            self.references.check_query(text, result.embeddings)
        except (PolarvecError, WrongVector) as caught:
            error = _by_code(caught)
        self.report("query", error, byte_count, calls)


class DocumentUser(PolarvecUser):
    """An ingestion job: 1 to 16 answers in a call."""

    weight = 1

    def on_start(self) -> None:
        self.rate = self.environment.parsed_options.document_rate
        super().on_start()

    @task
    def ingest(self) -> None:
        texts = _WORKLOAD.batch(self.generator)
        error: Exception | None = None
        calls: tuple[CallTimings, ...] = ()
        byte_count = 0
        try:
            result = self.client.embed_detailed(texts, input_type="document", truncation="end")
            calls, byte_count = result.calls, result.embeddings.nbytes
            self.references.check_documents(texts, result.embeddings)
        except (PolarvecError, WrongVector) as caught:
            error = _by_code(caught)
        self.report("documents", error, byte_count, calls)


class CallFailed(Exception):
    """A failure by its class and reason, so that Locust counts equal ones together."""


def _by_code(error: Exception) -> Exception:
    if isinstance(error, PolarvecError):
        return CallFailed(f"{type(error).__name__} {error.reason}".rstrip())
    return error


@events.quitting.add_listener
def _judge(environment: Environment, **_: object) -> None:
    """Sets the exit code: 1 if anything failed, nothing was measured, or a threshold was passed."""
    options, stats = environment.parsed_options, environment.stats
    problems = [f"{error.occurrences} x {error.name}: {error.error}" for error in stats.errors.values()]
    for name, limit_ms in (("query", options.max_query_p99_ms), ("documents", options.max_document_p99_ms)):
        entry = stats.get(name, _CALL)
        p99_ms = entry.get_response_time_percentile(0.99) or 0.0
        if 0 < limit_ms < p99_ms:
            problems.append(f"p99 of {name} is {p99_ms:.0f} ms, over {limit_ms:.0f} ms")
    if not any(entry.num_requests for (_, kind), entry in stats.entries.items() if kind == _CALL):
        problems.append("no call was made")
    for problem in problems:
        print(f"FAILED {problem}")
    environment.process_exit_code = 1 if problems else 0
