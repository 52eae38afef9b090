"""The load as Locust runs it: options, the user that dispatches, and who leads whom. See README.md."""

from __future__ import annotations

import signal
import sys
from functools import partial
from pathlib import Path
from typing import Any

import gevent
from grpc.experimental.gevent import init_gevent
from load_report.document import document
from load_report.page import write_report
from locust import LoadTestShape, User, events, task
from locust.env import Environment
from locust.runners import MasterRunner, WorkerRunner
from polarvec import PolarvecError
from traffic.conductor import Conductor
from traffic.limits import run_problems
from traffic.load_process import LoadProcess
from traffic.options import add_options
from traffic.samples import Samples
from traffic.scenario import Scenario
from traffic.server_watch import ServerWatch
from traffic.workload import BadWorkload

events.init_command_line_parser.add_listener(add_options)

_HOST = "localhost:50051"


class Dispatcher(User):
    """Each process has one: it starts every call when it is due, however many are open."""

    host = _HOST

    @task
    def work(self) -> None:
        """Offers the next stretch."""
        process: LoadProcess = self.environment.load_process
        process.offer(process.orders.get())


class UntilTheEnd(LoadTestShape):
    """One dispatcher a process, for as long as the conductor leads; the calls a second are the conductor's."""

    def tick(self) -> tuple[int, float] | None:
        """Users, and users started a second; None ends the run."""
        if getattr(self.runner.environment, "conductor", None) is None:
            return (self.runner.worker_count, self.runner.worker_count)
        if self.runner.environment.conductor.ended:
            return None
        return (self.runner.worker_count, self.runner.worker_count)


@events.init.add_listener
def _join(environment: Environment, **_: object) -> None:
    """Agrees on messages; `--processes` has forked by now, and gRPC must be set up after that."""
    init_gevent()  # After locust has patched the standard library, before the first channel.
    # Python would raise it in whatever greenlet runs just then, and some of Locust's swallow it.
    gevent.signal_handler(signal.SIGINT, gevent.kill, gevent.getcurrent(), KeyboardInterrupt)
    runner = environment.runner
    environment.process_exit_code = 0
    if not isinstance(runner, WorkerRunner):
        _scenario(environment)  # What is wrong with the options is said before anything starts.
        environment.conductor = None  # type: ignore[attr-defined]  # For the shape and the messages.
        runner.register_message("polarvec_samples", lambda environment, msg: _merge(environment, msg.data))
        runner.register_message("polarvec_done", _note_done)
        environment.events.worker_report.add_listener(lambda client_id, data: _take(environment, data))
    if not isinstance(runner, MasterRunner):
        tells = (partial(runner.send_message, name) for name in ("polarvec_samples", "polarvec_done"))
        process = LoadProcess(environment, *tells)
        environment.load_process = process  # type: ignore[attr-defined]  # For the user.
        runner.register_message("polarvec_prepare", _prepare, concurrent=True)
        runner.register_message("polarvec_stretch", lambda environment, msg: process.orders.put(msg.data))
    if isinstance(runner, WorkerRunner):
        environment.events.report_to_master.add_listener(
            lambda client_id, data: data.update(polarvec=process.samples.drain())
        )


@events.test_start.add_listener
def _lead(environment: Environment, **_: object) -> None:
    """Starts the conductor where the run is led from."""
    runner, options = environment.runner, environment.parsed_options
    if isinstance(runner, WorkerRunner):
        return
    watch = ServerWatch(options.metrics_url, options.triton_metrics_url, options.server_pid)
    conductor = Conductor(environment, _scenario(environment), watch)
    environment.conductor = conductor  # type: ignore[attr-defined]
    expected = options.expect_workers if isinstance(runner, MasterRunner) else 1
    environment.conducting = gevent.spawn(conductor.run, _host(environment), expected)  # type: ignore[attr-defined]


@events.test_stop.add_listener
def _finish(environment: Environment, **_: object) -> None:
    """Judges the run and writes its report."""
    conductor: Conductor | None = getattr(environment, "conductor", None)
    if conductor is None or isinstance(environment.runner, WorkerRunner):
        return
    options = environment.parsed_options
    if not conductor.ended:
        conductor.problems.append("the run was stopped before its end")
        if (process := getattr(environment, "load_process", None)) is not None:
            conductor.samples.merge(Samples.from_plain(process.samples.drain()))
        environment.conducting.kill()
    problems = conductor.problems + run_problems(conductor.phases, conductor.scenario.limits)
    if conductor.scenario.search:
        print(conductor.scenario.search.result()["says"])
    for problem in problems:
        print(f"FAILED {problem}")
    if options.report:
        place = write_report(document(conductor, problems, options.server_settings), Path(options.report))
        print(f"report: {place} (and .json beside it)")
    environment.process_exit_code = 1 if problems else 0
    environment.conductor = None


@events.quitting.add_listener
def _leave(environment: Environment, **_: object) -> None:
    """Locust's own verdict counts every failure; ours knows which phases break limits on purpose."""
    _finish(environment)
    if (process := getattr(environment, "load_process", None)) is not None:
        process.close()


def _prepare(environment: Environment, msg: Any) -> None:
    process: LoadProcess = environment.load_process
    try:
        process.prepare(msg.data, _scenario(environment), _host(environment))
    except PolarvecError as error:
        sys.exit(f"No connection, no load: {error}")


def _note_done(environment: Environment, msg: Any) -> None:
    if environment.conductor is not None:
        environment.conductor.note_done(msg.node_id, msg.data)


def _take(environment: Environment, data: dict[str, Any]) -> None:
    """What a worker measured since its last report."""
    if (plain := data.pop("polarvec", None)) is not None:
        _merge(environment, plain)


def _merge(environment: Environment, plain: dict[str, Any]) -> None:
    if environment.conductor is not None:
        environment.conductor.samples.merge(Samples.from_plain(plain))


def _host(environment: Environment) -> str:
    return environment.host or _HOST


def _scenario(environment: Environment) -> Scenario:
    try:
        return Scenario.from_options(environment.parsed_options)
    except (BadWorkload, ValueError) as error:
        print(error, file=sys.stderr)
        sys.exit(2)
