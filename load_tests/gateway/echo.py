"""The bare echo server, for the time of a measurement."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil
from measurement import Failure

_SCRIPT = Path(__file__).with_name("echo_server.py")


class Echo:
    """echo_server.py in a process of its own; a context manager."""

    def __init__(self, answer: bytes) -> None:
        """Starts it and waits for its port.

        Args:
            answer: What every call is answered with.
        """
        self._process = subprocess.Popen([sys.executable, str(_SCRIPT)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self._process.stdin is not None and self._process.stdout is not None
        try:
            self._process.stdin.write(answer)
            self._process.stdin.close()
            port = self._process.stdout.readline().strip()
            if not port:
                raise Failure("the echo server did not start")
        except BaseException:
            self._end()
            raise
        self.target = f"127.0.0.1:{int(port)}"
        self.process = psutil.Process(self._process.pid)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def _end(self) -> None:
        self._process.kill()
        self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()
