"""`polarvec-server serve`: the whole server on one machine, from a model's name to a ready line and back."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from polarvec_server.config import GPU_ENGINES, Settings
from polarvec_server.cores import available_cores, share_cores
from polarvec_server.deployment import DeployedModel, write_deployment
from polarvec_server.encoder_process import EncoderProcess
from polarvec_server.models.folder import read_folder
from polarvec_server.pipeline.canary import CanaryPack
from polarvec_server.prepare import prepare_models
from polarvec_server.processes import check_doors, reserve_ports, tell_doors, until_signal
from polarvec_server.run_directory import shared_memory_prefix
from polarvec_server.telemetry import Metrics
from polarvec_server.tritonserver import TritonInstall, TritonPlan, find_triton, free_port
from polarvec_server.worker_pool import WorkerPool, make_worker_pool


def serve(settings: Settings, directory: Path, say: Callable[[str], None]) -> None:
    """Serves until SIGINT or SIGTERM; a second one skips the draining.

    Args:
        settings: Everything.
        directory: The run directory.
        say: Told what a person wants to read: progress and the ready line.

    Raises:
        PolarvecServerError: It cannot start; the message says why.
    """
    check_doors(settings)
    reserved = reserve_ports(settings)
    try:
        install = find_triton(settings.triton_binary, directory)
        threads = share_cores(settings, available_cores(), "cpu").engine_threads
        # Before the event loop, so that a signal ends a long download at once.
        models = prepare_models(settings, directory / "repository", say, threads)
        asyncio.run(Supervisor(settings, directory, install, models, say).run())
    finally:
        for holder in reserved:
            holder.close()


class Supervisor:
    """Starts, watches and ends every process of a server."""

    def __init__(
        self,
        settings: Settings,
        directory: Path,
        install: TritonInstall,
        models: Sequence[DeployedModel],
        say: Callable[[str], None],
    ) -> None:
        """Keeps what it works with; see `serve`."""
        self._settings, self._directory, self._models, self._say = settings, directory, models, say
        self._folders = {model.triton_name: read_folder(Path(model.folder)) for model in models}
        self._plan = TritonPlan(
            install=install,
            repository=directory / "repository",
            socket_directory=directory,
            metrics_port=settings.triton_metrics_port or free_port(),
            load_timeout_s=settings.load_timeout_s,
            shared_memory_prefix=shared_memory_prefix(),
        )
        gpu = all(model.engine in GPU_ENGINES for model in models)
        self._worker_count = share_cores(settings, available_cores(), "gpu" if gpu else "cpu").workers

    async def run(self) -> None:
        """Serves until SIGINT or SIGTERM. Raises ConfigError if it cannot start."""
        metrics = Metrics()
        encoder, workers = self._encoder(metrics), self._workers(metrics)

        def hurry() -> None:
            workers.kill()
            encoder.kill()

        self._stop = until_signal(hurry)
        starting = asyncio.gather(encoder.start(), workers.start())
        try:
            if await self._finishes_before_stop(starting):
                self._say_ready()
                watching = asyncio.gather(encoder.keep_serving(), workers.keep_serving())
                await self._finishes_before_stop(watching)
        finally:
            self._say("stopping")
            await workers.stop()
            await encoder.stop()

    def _encoder(self, metrics: Metrics) -> EncoderProcess:
        settings = self._settings
        canaries = {
            model.triton_name: (
                CanaryPack.read(Path(model.golden_path)),
                self._folders[model.triton_name].dimensions,
            )
            for model in self._models
        }
        return EncoderProcess(
            self._plan,
            canaries,
            canary_interval_s=settings.canary_interval_s,
            canary_timeout_s=settings.canary_timeout_s,
            on_restart=lambda cause: metrics.encoder_restarts.labels(cause).inc(),
            gpu=any(model.engine in GPU_ENGINES for model in self._models),
        )

    def _workers(self, metrics: Metrics) -> WorkerPool:
        deployment = self._directory / "models.json"
        write_deployment(deployment, self._models)
        # The port that Triton really got: the playground reads its batches there.
        settings = self._settings.model_copy(update={"triton_metrics_port": self._plan.metrics_port})
        return make_worker_pool(
            settings, deployment, self._plan.target, self._worker_count, metrics.worker_restarts.inc
        )

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

    def _say_ready(self) -> None:
        settings = self._settings
        names = ", ".join(
            f"{self._folders[m.triton_name].id} "
            f"({self._folders[m.triton_name].dimensions} dimensions, {m.engine} {m.precision})"
            for m in self._models
        )
        program = Path(sys.executable).with_name("polarvec")
        self._say(f"ready  {tell_doors(settings)}  model {names}")
        self._say(
            f"       {self._worker_count} worker(s); Triton's own metrics: "
            f"http://127.0.0.1:{self._plan.metrics_port}/metrics"
        )
        if settings.tls_cert_file or settings.api_keys_file:
            return
        self._say(
            f"try    {os.path.relpath(program)} rank --target {settings.grpc_address} "
            "--query '대한민국의 수도는 어디인가?' '대한민국의 수도는 서울이다.' '한글은 세종대왕이 창제하였다.'"
        )
