"""A peer's server as a child process of its runner."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys


class ChildServer:
    """Started at once; `stop` ends it."""

    def __init__(self, command: list[str]) -> None:
        self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=sys.stderr)

    def stop(self) -> None:
        """SIGTERM, and SIGKILL after 15 s."""
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(15)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def free_port() -> int:
    """A TCP port on loopback that nobody uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
