"""A whole server as its users run it: `polarvec-server serve` in a process of its own."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path

import psutil

READY_TIMEOUT_S = 180


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class ServerProcess:
    """Starts a server, tells its addresses and processes, ends it, and can say what it left behind."""

    def __init__(self, model: str, cache: Path, **settings: object) -> None:
        self.grpc_port, self.http_port, self.openai_port = free_port(), free_port(), free_port()
        names = {
            "model": model,
            "cache_dir": cache,
            "grpc_port": self.grpc_port,
            "http_port": self.http_port,
            "openai_port": self.openai_port,
            **settings,
        }
        environment = {name: value for name, value in os.environ.items() if not name.startswith("POLARVEC_")}
        environment |= {f"POLARVEC_{name.upper()}": str(value) for name, value in names.items()}
        self.lines: list[str] = []
        self._ready = threading.Event()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "polarvec_server.cli", "serve"],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.lines.append(line.rstrip("\n"))
            if line.startswith("ready"):
                self._ready.set()
        self._ready.set()

    @property
    def target(self) -> str:
        return f"127.0.0.1:{self.grpc_port}"

    @property
    def openai_url(self) -> str:
        return f"http://127.0.0.1:{self.openai_port}/v1"

    @property
    def output(self) -> str:
        return "\n".join(self.lines)

    @property
    def pid(self) -> int:
        return self._process.pid

    def wait_ready(self) -> ServerProcess:
        self._ready.wait(READY_TIMEOUT_S)
        if self._process.poll() is not None or not any(line.startswith("ready") for line in self.lines):
            self.kill()
            raise AssertionError(f"the server is not ready:\n{self.output}")
        return self

    def wait_ended(self, timeout_s: float = 60) -> int:
        status = self._process.wait(timeout_s)
        self._reader.join(10)
        return status

    def processes(self) -> list[psutil.Process]:
        return psutil.Process(self.pid).children(recursive=True)

    def find(self, word: str) -> list[psutil.Process]:
        """The server's processes whose command line has a word: tritonserver, stub, worker."""
        found = []
        for process in self.processes():
            try:
                if any(word in part for part in process.cmdline()[:4]):
                    found.append(process)
            except psutil.NoSuchProcess:
                continue
        return found

    def triton(self) -> psutil.Process:
        return next(p for p in self.find("bin/tritonserver"))

    def stub(self) -> psutil.Process:
        return next(p for p in self.find("triton_python_backend_stub"))

    def workers(self) -> list[psutil.Process]:
        return self.find("worker")

    def http(self, path: str) -> tuple[int, str]:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.http_port}{path}", timeout=5) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()

    def metric(self, name: str) -> float:
        """Sum of the gateway's samples that begin so, with or without labels; 0 if there is none yet."""
        lines = self.http("/metrics")[1].splitlines()
        starts = name if "{" in name else (f"{name}{{", f"{name} ")
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(starts))

    def counted(self, name: str) -> float:
        """As `metric`, with all that has ended: workers other than the one asked add theirs twice a second."""
        time.sleep(0.7)
        return self.metric(name)

    def triton_metric(self, name: str) -> float:
        """Sum of one of Triton's own counters over all models."""
        address = next(match[0] for line in self.lines if (match := re.search(r"http://\S+/metrics", line)))
        with urllib.request.urlopen(address, timeout=5) as answer:
            lines = answer.read().decode().splitlines()
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(name + "{"))

    def stop(self, number: int = signal.SIGINT) -> int:
        if self._process.poll() is None:
            self._process.send_signal(number)
        try:
            return self.wait_ended()
        finally:
            self.kill()

    def kill(self) -> None:
        if self._process.poll() is None:
            for process in [*self.processes(), psutil.Process(self.pid)]:
                try:
                    process.kill()
                except psutil.NoSuchProcess:
                    continue
            self._process.wait(30)
        if self._process.stdout is not None:
            self._reader.join(10)
            self._process.stdout.close()

    def leftovers(self) -> list[str]:
        """Shared memory, sockets and directories that bear this server's mark."""
        mark = f"polarvec-{self.pid}-"
        places = [Path("/dev/shm"), Path("/tmp")]
        return [str(entry) for place in places for entry in place.glob(f"{mark}*")]


def wait_until(condition, timeout_s: float, what: str) -> float:
    """Waits for a condition and returns the seconds that it took."""
    started = time.monotonic()
    while not condition():
        if time.monotonic() - started > timeout_s:
            raise AssertionError(f"after {timeout_s} s still not: {what}")
        time.sleep(0.05)
    return time.monotonic() - started


def run_serve(cache: Path, **settings: object) -> subprocess.CompletedProcess[str]:
    """Runs `polarvec-server serve` to its end: for starts that are refused."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("POLARVEC_")}
    names = {"cache_dir": cache, "openai_port": 0, **settings}
    environment |= {f"POLARVEC_{name.upper()}": str(value) for name, value in names.items()}
    return subprocess.run(
        [sys.executable, "-m", "polarvec_server.cli", "serve"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
