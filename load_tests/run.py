"""`make load`: starts a server of its own, loads it with Locust in one process or more; ends with its code."""

from __future__ import annotations

import argparse
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from own_children import own_children
from own_server import OwnServer, ending_with_us
from traffic.options import add_options
from traffic.scenario import Scenario
from traffic.workload import BadWorkload

LOCUSTFILE = Path(__file__).with_name("locustfile.py")
_STARTUP_S = "60"
_REPORT_S = 60
"""What Locust gets after an interrupt to write the report of what was measured."""


class _LoadOptions(argparse.ArgumentParser):
    """Reads the options of the load before a server is started for them; Locust reads them again."""

    def add_argument(self, *names: Any, include_in_web_ui: bool = True, **settings: Any) -> argparse.Action:
        """Leaves out what only Locust's own parser knows."""
        return super().add_argument(*names, **settings)


def main() -> int:
    ours = _LoadOptions(prog="load", usage=argparse.SUPPRESS, add_help=False, allow_abbrev=False)
    add_options(ours)
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog=f"Of the load (load_tests/README.md); what else is given goes to Locust:\n\n{ours.format_help()}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--model", default="e5-small", help="a pulled model or a folder")
    parser.add_argument("--precision", default="auto", help="f32, bf16, or what the CPU likes best")
    parser.add_argument("--workers", type=int, default=0, help="Locust workers under a master; 0: one process does all")
    options, others = parser.parse_known_args()
    try:
        Scenario.from_options(ours.parse_known_args(others)[0])
    except (BadWorkload, ValueError) as error:
        parser.exit(2, f"{error}\n")
    settings = {"precision": options.precision}
    with own_children(), OwnServer(options.model, openai_port="0", **settings) as server:
        print(server.ready_line, flush=True)
        about = ["--metrics-url", server.metrics_url, "--server-pid", str(server.pid)]
        about += ["--triton-metrics-url", server.triton_metrics_url, "--server-settings", json.dumps(settings)]
        return load(server.target, options.workers, [*about, *others])


def load(target: str, worker_count: int, options: list[str]) -> int:
    """Runs Locust against a server; its exit code.

    Args:
        target: host:port.
        worker_count: Workers under a master; 0 is a single process.
        options: For Locust.
    """
    environment = {name: value for name, value in os.environ.items() if not name.startswith("LOCUST_")}
    command = [sys.executable, "-m", "locust", "--locustfile", str(LOCUSTFILE), "--host", target]
    leading = [*command, "--headless", "--only-summary", "--loglevel", "WARNING", *options]
    if not worker_count:
        return _lead(leading, environment)
    port = str(_free_port())
    following = [*command, "--worker", "--loglevel", "WARNING", "--master-host", "127.0.0.1", "--master-port", port]
    workers = [_start(following, environment) for _ in range(worker_count)]
    try:
        master = ["--master", "--master-bind-host", "127.0.0.1", "--master-bind-port", port]
        expected = ["--expect-workers", str(worker_count), "--expect-workers-max-wait", _STARTUP_S]
        return _lead([*leading, *master, *expected], environment)
    finally:
        for worker in workers:
            try:
                worker.wait(10)
            except subprocess.TimeoutExpired:
                worker.kill()
                worker.wait()


def _lead(command: Sequence[str], environment: Mapping[str, str]) -> int:
    """Runs the process that writes the report; an interrupt stops the load, and the report still is waited for."""
    process = _start(command, environment)
    try:
        return process.wait()
    except KeyboardInterrupt:
        print(f"Stopping; the report is being written, at most {_REPORT_S} s. Once more ends it at once.", flush=True)
        process.send_signal(signal.SIGINT)
        return process.wait(_REPORT_S)
    finally:
        process.kill()


def _start(command: Sequence[str], environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
    """Starts it where Ctrl-C does not reach it: a second signal would break Locust's own end."""
    return subprocess.Popen(
        ending_with_us(*command),
        env=environment,
        stdin=subprocess.DEVNULL,
        start_new_session=True,
        # A shell starts what is in the background with Ctrl-C ignored, and Locust would inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (KeyboardInterrupt, subprocess.TimeoutExpired):
        sys.exit("The load was interrupted, and there is no report of it.")
