"""Runs callers.py, the callers in a process of their own."""

from __future__ import annotations

import base64
import contextlib
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from measurement import Failure

_SCRIPT = Path(__file__).with_name("callers.py")
# Beyond the time of the load: the process imports grpc, and the last calls end.
_GRACE_S = 90


class ClosedLoop:
    """Callers that began to call; a context manager, at whose end none of them is left."""

    def __init__(
        self, target: str, payloads: Sequence[bytes], callers: int, seconds: float, *, connections: int = 1
    ) -> None:
        """Starts them.

        Args:
            target: Address of the server.
            payloads: Serialised calls, sent in turn and again from the first.
            callers: Calls in flight.
            seconds: No call begins after them.
            connections: The callers are spread over so many.
        """
        job = {"target": target, "callers": callers, "connections": connections, "seconds": seconds}
        job["payloads"] = [base64.b64encode(payload).decode() for payload in payloads]
        self._seconds = seconds
        self._process = subprocess.Popen(
            [sys.executable, str(_SCRIPT)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        assert self._process.stdin is not None
        # A process that ended at once says why on its standard error.
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(json.dumps(job).encode())
            self._process.stdin.close()
        self._process.stdin = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.communicate()

    def result(self) -> dict[str, Any]:
        """Waits for the end and returns what callers.py printed. Raises Failure with its words if it failed."""
        try:
            printed, complaints = self._process.communicate(timeout=self._seconds + _GRACE_S)
        except subprocess.TimeoutExpired:
            raise Failure(f"the callers did not end {_GRACE_S} s after their time") from None
        if self._process.returncode:
            lines = complaints.decode(errors="replace").strip().splitlines()
            raise Failure(f"the callers failed: {lines[-1] if lines else f'exit {self._process.returncode}'}")
        return json.loads(printed)


def call(
    target: str, payloads: Sequence[bytes], callers: int, seconds: float, *, connections: int = 1
) -> dict[str, Any]:
    """Runs callers to their end and returns calls, seconds, cpu_s, p50_ms and p99_ms."""
    with ClosedLoop(target, payloads, callers, seconds, connections=connections) as loop:
        return loop.result()
