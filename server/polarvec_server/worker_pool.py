"""Keeps the gateway workers serving: N processes on one port."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence

import structlog
from prometheus_client import multiprocess

from polarvec_server.children import Child
from polarvec_server.config import Settings
from polarvec_server.errors import ConfigError

_log = structlog.get_logger("workers")
_FIRST_BACKOFF_S, _LAST_BACKOFF_S = 0.1, 10.0
_STOP_MARGIN_S = 3.0


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

    @property
    def pids(self) -> list[int]:
        """Process ids of the workers."""
        return [child.pid for child in self._children.values()]

    async def start(self) -> None:
        """Starts the workers; returns when each has said that it is ready. Raises ConfigError if one ends before."""
        ready = [asyncio.get_running_loop().create_future() for _ in range(self._count)]
        self._keepers = [asyncio.create_task(self._keep(index, ready[index])) for index in range(self._count)]
        await asyncio.gather(*ready)

    async def _keep(self, index: int, ready: asyncio.Future[None]) -> None:
        backoff_s = _FIRST_BACKOFF_S
        while not self._stopping:
            started = time.monotonic()
            status = await self._run_one(index, ready)
            if self._stopping:
                return
            if not ready.done():
                ready.set_exception(ConfigError(f"a gateway worker ended with status {status} before it was ready."))
                return
            self._on_restart()
            backoff_s = (
                _FIRST_BACKOFF_S
                if time.monotonic() - started > _LAST_BACKOFF_S
                else min(2 * backoff_s, _LAST_BACKOFF_S)
            )
            _log.error("a worker ended and starts again", worker=index, status=status, in_s=backoff_s)
            await asyncio.sleep(backoff_s)

    async def _run_one(self, index: int, ready: asyncio.Future[None]) -> int:
        """Runs one worker to its end."""
        read_end, write_end = os.pipe()
        # Workers write their own log lines, JSON or for a console; they pass as they are.
        child = Child(
            [*self._argv, f"--ready-fd={write_end}"],
            self._environment,
            lambda line: print(line, file=sys.stderr),  # noqa: T201
        )
        await child.start(pass_fds=(write_end,))
        os.close(write_end)
        self._children[index] = child
        loop = asyncio.get_running_loop()

        def on_ready() -> None:
            loop.remove_reader(read_end)
            if os.read(read_end, 1) and not ready.done():
                ready.set_result(None)

        loop.add_reader(read_end, on_ready)
        try:
            return await child.wait()
        finally:
            loop.remove_reader(read_end)
            os.close(read_end)
            multiprocess.mark_process_dead(child.pid, self._metrics_directory)  # type: ignore[no-untyped-call]

    async def keep_serving(self) -> None:
        """Waits for ever; the keepers do the work."""
        await asyncio.gather(*self._keepers)

    async def stop(self) -> None:
        """Drains and ends all workers."""
        self._stopping = True
        await asyncio.gather(*(child.stop(self._stop_grace_s + _STOP_MARGIN_S) for child in self._children.values()))
        for keeper in self._keepers:
            keeper.cancel()
        await asyncio.gather(*self._keepers, return_exceptions=True)


def worker_environment(settings: Settings, metrics_directory: str) -> dict[str, str]:
    """Returns the environment of a gateway worker."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("POLARVEC_")}
    return {
        **kept,
        **settings.as_environment(),
        "PROMETHEUS_MULTIPROC_DIR": metrics_directory,
        # Calls are tokenized side by side; threads inside one call would only fight with the engine's.
        "TOKENIZERS_PARALLELISM": "false",
        "OPENBLAS_NUM_THREADS": "1",
        "PYTHONUTF8": "1",
    }
