"""Keeps the gateway workers serving: N processes on one port."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import structlog
from prometheus_client import multiprocess

from polarvec_server.children import Child
from polarvec_server.config import Settings
from polarvec_server.errors import ConfigError

_log = structlog.get_logger("workers")
_FIRST_BACKOFF_S, _LAST_BACKOFF_S = 0.1, 10.0
_STOP_MARGIN_S = 3.0
_HEARTBEAT_CHECK_S = 1.0
_LONGEST_SILENCE_S = 10.0


class WorkerPool:
    """The gateway workers of one server."""

    def __init__(
        self,
        arguments: Sequence[str],
        environment: Mapping[str, str],
        count: int,
        *,
        stop_grace_s: float,
        metrics_directory: str,
        on_restart: Callable[[], None],
    ) -> None:
        """Keeps what it works with.

        Args:
            arguments: What follows `polarvec-server` on a worker's command line.
            environment: The workers' environment.
            count: How many.
            stop_grace_s: How long a worker may drain.
            metrics_directory: PROMETHEUS_MULTIPROC_DIR.
            on_restart: Called for each worker that ended by itself.
        """
        self._argv = [sys.executable, "-m", "polarvec_server.cli", *arguments]
        self._environment, self._count = environment, count
        self._stop_grace_s = stop_grace_s
        self._metrics_directory, self._on_restart = metrics_directory, on_restart
        self._children: dict[int, Child] = {}
        self._keepers: list[asyncio.Task[None]] = []
        self._stopping = False

    async def start(self) -> None:
        """Starts the workers; returns when each has said that it is ready. Raises ConfigError if one ends before."""
        ready = [asyncio.get_running_loop().create_future() for _ in range(self._count)]
        self._keepers = [asyncio.create_task(self._keep(index, ready[index])) for index in range(self._count)]
        await asyncio.gather(*ready)

    async def _keep(self, index: int, ready: asyncio.Future[None]) -> None:
        backoff_s = _FIRST_BACKOFF_S
        while not self._stopping:
            started = time.monotonic()
            try:
                status = await self._run_one(index, ready)
            except OSError as error:
                # No memory or no process left to fork with: try again like after any other end.
                _log.error("a worker cannot be started", worker=index, error=str(error))
                status = -1
            if self._stopping:
                return
            if not ready.done():
                ready.set_exception(ConfigError(f"a gateway worker ended with status {status} before it was ready."))
                return
            self._on_restart()
            short = time.monotonic() - started <= _LAST_BACKOFF_S
            backoff_s = min(2 * backoff_s, _LAST_BACKOFF_S) if short else _FIRST_BACKOFF_S
            _log.error("a worker ended and starts again", worker=index, status=status, in_s=backoff_s)
            await asyncio.sleep(backoff_s)

    async def _run_one(self, index: int, ready: asyncio.Future[None]) -> int:
        """Runs one worker to its end; kills it when its heart, a byte a second once it is ready, stands still."""
        read_end, write_end = os.pipe()
        # Workers write their own log lines, JSON or for a console; they pass as they are.
        child = Child(
            [*self._argv, f"--ready-fd={write_end}"],
            self._environment,
            lambda line: print(line, file=sys.stderr),  # noqa: T201
        )
        loop = asyncio.get_running_loop()
        beats = _Heartbeat(read_end, ready)
        try:
            try:
                await child.start(pass_fds=(write_end,))
            finally:
                os.close(write_end)
            self._children[index] = child
            loop.add_reader(read_end, beats.read)
            ended = asyncio.create_task(child.wait())
            while not ended.done():
                await asyncio.wait({ended}, timeout=_HEARTBEAT_CHECK_S)
                if beats.silent_s > _LONGEST_SILENCE_S and not ended.done():
                    _log.error("a worker hangs and is killed", worker=index, pid=child.pid)
                    child.signal(signal.SIGKILL)
            return ended.result()
        finally:
            loop.remove_reader(read_end)
            os.close(read_end)
            if child.pid:
                multiprocess.mark_process_dead(child.pid, self._metrics_directory)  # type: ignore[no-untyped-call]

    async def keep_serving(self) -> None:
        """Waits for ever; the keepers do the work."""
        await asyncio.gather(*self._keepers)

    async def stop(self) -> None:
        """Drains and ends all workers."""
        self._stopping = True
        await self._stop_children()
        for keeper in self._keepers:
            keeper.cancel()
        await asyncio.gather(*self._keepers, return_exceptions=True)
        # One may have been on its way up.
        await self._stop_children()

    async def _stop_children(self) -> None:
        await asyncio.gather(*(child.stop(self._stop_grace_s + _STOP_MARGIN_S) for child in self._children.values()))

    def kill(self) -> None:
        """Ends all workers at once: somebody has no time for draining."""
        for child in self._children.values():
            child.signal(signal.SIGKILL)


class _Heartbeat:
    """The end of the pipe through which a worker says that it is ready, and then every second that it lives."""

    def __init__(self, fd: int, ready: asyncio.Future[None]) -> None:
        self._fd, self._ready = fd, ready
        self._last: float | None = None

    def read(self) -> None:
        if not os.read(self._fd, 4096):
            # The worker ended; its exit is noticed elsewhere.
            asyncio.get_running_loop().remove_reader(self._fd)
            return
        self._last = time.monotonic()
        if not self._ready.done():
            self._ready.set_result(None)

    @property
    def silent_s(self) -> float:
        """Seconds since the last beat; 0 before the first, because loading may take long."""
        return 0.0 if self._last is None else time.monotonic() - self._last


def make_worker_pool(
    settings: Settings, deployment: Path, triton_target: str, count: int, on_restart: Callable[[], None]
) -> WorkerPool:
    """Makes the pool of a server; PROMETHEUS_MULTIPROC_DIR must be set, see `run_directory`."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("POLARVEC_")}
    # Otherwise gRPC writes a line, and no JSON, for everybody whose TLS handshake fails.
    kept.setdefault("GRPC_VERBOSITY", "ERROR")
    fixed = {
        # Calls are tokenized side by side; threads inside one call would only fight with the engine's.
        "TOKENIZERS_PARALLELISM": "false",
        "OPENBLAS_NUM_THREADS": "1",
        "PYTHONUTF8": "1",
    }
    return WorkerPool(
        ["worker", f"--deployment={deployment}", f"--triton-target={triton_target}", f"--worker-count={count}"],
        {**kept, **settings.as_environment(), **fixed},
        count,
        stop_grace_s=settings.drain_s + settings.drain_delay_s,
        metrics_directory=os.environ["PROMETHEUS_MULTIPROC_DIR"],
        on_restart=on_restart,
    )
