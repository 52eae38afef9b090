"""A server of our own for the time of a benchmark: `polarvec-server serve` on free ports of loopback."""

from __future__ import annotations

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
        own = {"host": "127.0.0.1", "grpc_port": str(grpc_port), "http_port": str(http_port), "log_level": "error"}
        own |= {"openai_port": str(openai_port), **settings}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "polarvec_server.cli", "serve", model],
            env={**os.environ, **{f"POLARVEC_{name.upper()}": value for name, value in own.items()}},
            stdout=subprocess.PIPE,
            text=True,
            preexec_fn=lambda: os.sched_setaffinity(0, cores or os.sched_getaffinity(0)),
        )
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith("ready"):
                self.ready_line = line.strip()
                return
        sys.exit("the server did not start")

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
        """Ends it."""
        self._process.send_signal(signal.SIGINT)
        self._process.wait(60)


def roomy_queue() -> dict[str, str]:
    """The setting for a server whose throughput is measured and not its admission; what the environment says wins."""
    return {"queue_tokens": os.environ.get("POLARVEC_QUEUE_TOKENS", str(4 << 20))}


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
