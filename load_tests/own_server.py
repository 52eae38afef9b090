"""A server of our own for the time of a benchmark: `polarvec-server serve` on free ports of loopback."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Collection
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil
from polarvec_server import launch

_END_S = 60


class OwnServer:
    """`polarvec-server serve`; a context manager."""

    def __init__(self, model: str, *, cores: Collection[int] = (), **settings: str) -> None:
        """Starts it and waits for its ready line.

        Args:
            model: A name or a folder.
            cores: The cores that it gets; empty means all of ours.
            settings: By their names in config.py; they win over the environment.
        """
        grpc_port, http_port, openai_port = (_free_port() for _ in range(3))
        self.target = f"127.0.0.1:{grpc_port}"
        self.openai_url = f"http://127.0.0.1:{openai_port}/v1"
        self.metrics_url = f"http://127.0.0.1:{http_port}/metrics"
        own = {"host": "127.0.0.1", "grpc_port": str(grpc_port), "http_port": str(http_port), "log_level": "error"}
        triton_metrics_port = _free_port()
        self.triton_metrics_url = f"http://127.0.0.1:{triton_metrics_port}/metrics"
        own |= {"openai_port": str(openai_port), "triton_metrics_port": str(triton_metrics_port), **settings}
        self._process = subprocess.Popen(
            ending_with_us(sys.executable, "-m", "polarvec_server.cli", "serve", model),
            env={**os.environ, **{f"POLARVEC_{name.upper()}": value for name, value in own.items()}},
            stdout=subprocess.PIPE,
            text=True,
            # Ctrl-C is for whoever measures, whose last calls still want a server; __exit__ ends this one.
            process_group=0,
            preexec_fn=lambda: os.sched_setaffinity(0, cores or os.sched_getaffinity(0)),
        )
        try:
            self.ready_line = self._await_ready()
        except BaseException:  # Also Ctrl-C: nobody enters this server, so nobody would end it.
            self._end()
            raise

    @property
    def pid(self) -> int:
        """Of its supervisor."""
        return self._process.pid

    @property
    def triton_target(self) -> str:
        """Address of its tritonserver: a socket in the run directory, which only this user can open."""
        (place,) = Path(tempfile.gettempdir()).glob(f"polarvec-{self._process.pid}-*/grpc:0")
        return f"unix:{place}"

    def __enter__(self) -> Self:
        """The server itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Ends it, by force if it does not end itself."""
        self._end()

    def _await_ready(self) -> str:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith("ready"):
                return line.strip()
        sys.exit("the server did not start")

    def _end(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout:
            self._end_processes()

    def _end_processes(self) -> None:
        if self._process.poll() is not None:
            return
        # Listed first: what loses its parent is nobody's child any more.
        tree = psutil.Process(self._process.pid).children(recursive=True)
        # Not SIGINT, which is ignored where a shell started us in the background.
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(_END_S)
        finally:
            for process in tree:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
            self._process.kill()
            self._process.wait()


def ending_with_us(*argv: str) -> list[str]:
    """The command for a process that gets SIGTERM when we are gone, even if we are killed; its pid is that of argv."""
    return [sys.executable, "-I", "-S", launch.__file__, str(os.getpid()), *argv]


def roomy_queue() -> dict[str, str]:
    """The setting for a server whose throughput is measured and not its admission; what the environment says wins."""
    return {"queue_tokens": os.environ.get("POLARVEC_QUEUE_TOKENS", str(4 << 20))}


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
