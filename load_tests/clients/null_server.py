"""A server whose engine computes nothing, on cores of its own, for the time of a comparison."""

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


class NullServer:
    """`polarvec-server serve` with POLARVEC_ENGINE=null; a context manager."""

    def __init__(self, model: str, cores: Collection[int]) -> None:
        """Starts it on these cores and waits for its ready line."""
        grpc_port, http_port, openai_port = (_free_port() for _ in range(3))
        self.target = f"127.0.0.1:{grpc_port}"
        self.openai_url = f"http://127.0.0.1:{openai_port}/v1"
        self._process = subprocess.Popen(
            [sys.executable, "-m", "polarvec_server.cli", "serve", model],
            env={
                **os.environ,
                "POLARVEC_ENGINE": "null",
                "POLARVEC_HOST": "127.0.0.1",
                "POLARVEC_GRPC_PORT": str(grpc_port),
                "POLARVEC_HTTP_PORT": str(http_port),
                "POLARVEC_OPENAI_PORT": str(openai_port),
                "POLARVEC_LOG_LEVEL": "error",
            },
            stdout=subprocess.PIPE,
            text=True,
            preexec_fn=lambda: os.sched_setaffinity(0, cores),
        )
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith("ready"):
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


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
