"""`polarvec-server serve`: the whole server on one machine, from a model's name to a ready line and back."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import structlog

from polarvec_server.config import GPU_ENGINES, Settings
from polarvec_server.deployment import DeployedModel, write_deployment
from polarvec_server.encoder_process import EncoderProcess
from polarvec_server.models.folder import ModelFolder, read_folder
from polarvec_server.pipeline.canary import CanaryPack
from polarvec_server.prepare import prepare_models
from polarvec_server.processes import reserve_ports, until_signal, worker_count
from polarvec_server.telemetry import Metrics
from polarvec_server.tritonserver import TritonPlan, find_triton, free_port, remove_orphans, shared_memory_prefix
from polarvec_server.worker_pool import WorkerPool, worker_environment

_log = structlog.get_logger("supervisor")


class Supervisor:
    """Starts, watches and ends every process of a server."""

    def __init__(self, settings: Settings, say: Callable[[str], None]) -> None:
        """Keeps what it works with.

        Args:
            settings: Everything.
            say: Told what a person wants to read: progress and the ready line.
        """
        self._settings, self._say = settings, say

    async def run(self) -> None:
        """Serves until SIGINT or SIGTERM. Raises ConfigError if it cannot start."""
        self._stop = until_signal(signal.SIGINT, signal.SIGTERM)
        reserved = reserve_ports(self._settings)
        remove_orphans()
        remove_orphans(Path(tempfile.gettempdir()))
        # Short, because a socket's path has at most 107 bytes; private, because whoever reaches the socket owns Triton.
        directory = Path(tempfile.mkdtemp(prefix=shared_memory_prefix()))
        try:
            await self._serve(directory)
        finally:
            shutil.rmtree(directory, ignore_errors=True)
            for holder in reserved:
                holder.close()

    async def _serve(self, directory: Path) -> None:
        settings = self._settings
        install = find_triton(settings.triton_binary, directory)
        models = await asyncio.to_thread(prepare_models, settings, directory / "repository", self._say)
        deployment = directory / "models.json"
        write_deployment(deployment, models)
        metrics_directory = directory / "metrics"
        metrics_directory.mkdir()
        gpu = all(model.engine in GPU_ENGINES for model in models)
        count = worker_count(settings, engine_elsewhere=False, gpu=gpu)
        plan = TritonPlan(
            install=install,
            repository=directory / "repository",
            socket_directory=directory,
            metrics_port=settings.triton_metrics_port or free_port(),
            load_timeout_s=settings.load_timeout_s,
            shared_memory_prefix=shared_memory_prefix(),
        )
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(metrics_directory)
        metrics = Metrics()
        folders = {model.triton_name: read_folder(Path(model.folder)) for model in models}
        encoder = EncoderProcess(
            plan,
            {m.triton_name: (CanaryPack.read(Path(m.golden_path)), folders[m.triton_name].dimensions) for m in models},
            canary_interval_s=settings.canary_interval_s,
            canary_timeout_s=settings.canary_timeout_s,
            on_restart=lambda cause: metrics.encoder_restarts.labels(cause).inc(),
        )
        workers = WorkerPool(
            ["worker", f"--deployment={deployment}", f"--triton-target={plan.target}", f"--worker-count={count}"],
            worker_environment(settings, str(metrics_directory)),
            count,
            stop_grace_s=settings.drain_s + settings.drain_delay_s,
            metrics_directory=str(metrics_directory),
            on_restart=metrics.worker_restarts.inc,
        )
        starting = asyncio.gather(encoder.start(), workers.start())
        try:
            if await self._finishes_before_stop(starting):
                self._say_ready(models, folders, count, plan)
                watching = asyncio.gather(encoder.keep_serving(), workers.keep_serving())
                await self._finishes_before_stop(watching)
        finally:
            self._say("stopping")
            await workers.stop()
            await encoder.stop()

    async def _finishes_before_stop(self, work: asyncio.Future[tuple[None, None]]) -> bool:
        """Waits for the work or for the signal to stop; True if the work came first."""
        either: set[asyncio.Future[Any]] = {work, self._stop}
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        if work.done():
            work.result()
            return True
        work.cancel()
        await asyncio.gather(work, return_exceptions=True)
        return False

    def _say_ready(
        self, models: Sequence[DeployedModel], folders: Mapping[str, ModelFolder], count: int, plan: TritonPlan
    ) -> None:
        settings = self._settings
        address = settings.grpc_address
        names = ", ".join(
            f"{folders[m.triton_name].id} ({folders[m.triton_name].dimensions} dimensions, {m.engine} {m.precision})"
            for m in models
        )
        program = Path(sys.executable).with_name("polarvec")
        self._say(f"ready  gRPC {address}  HTTP http://{settings.http_address}  model {names}")
        self._say(f"       {count} worker(s); Triton's own metrics: http://127.0.0.1:{plan.metrics_port}/metrics")
        self._say(
            f"try    {os.path.relpath(program)} rank --target {address} --query '대한민국의 수도는 어디인가?' "
            "'대한민국의 수도는 서울이다.' '한글은 세종대왕이 창제하였다.'"
        )
