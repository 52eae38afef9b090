"""`polarvec-server gateway`: the gateway workers alone, in front of a tritonserver that somebody else runs."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import tempfile
from collections.abc import Callable
from pathlib import Path

from polarvec_server.config import Settings
from polarvec_server.deployment import read_deployment
from polarvec_server.processes import reserve_ports, until_signal, worker_count
from polarvec_server.telemetry import Metrics
from polarvec_server.tritonserver import remove_orphans, shared_memory_prefix
from polarvec_server.worker_pool import WorkerPool, worker_environment


async def run_gateway(settings: Settings, deployment: Path, say: Callable[[str], None]) -> None:
    """Serves until SIGINT or SIGTERM. Raises ConfigError if it cannot start."""
    stop = until_signal(signal.SIGINT, signal.SIGTERM)
    models = read_deployment(deployment)
    count = worker_count(settings, engine_elsewhere=True, gpu=False)
    reserved = reserve_ports(settings)
    remove_orphans(Path(tempfile.gettempdir()))
    metrics_directory = tempfile.mkdtemp(prefix=shared_memory_prefix())
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = metrics_directory
    workers = WorkerPool(
        [
            "worker",
            f"--deployment={deployment}",
            f"--triton-target={settings.triton_target}",
            f"--worker-count={count}",
        ],
        worker_environment(settings, metrics_directory),
        count,
        stop_grace_s=settings.drain_s + settings.drain_delay_s,
        metrics_directory=metrics_directory,
        on_restart=Metrics().worker_restarts.inc,
    )
    serving = asyncio.create_task(_serve(workers, settings, len(models), say))
    try:
        await asyncio.wait({serving, stop}, return_when=asyncio.FIRST_COMPLETED)
        if serving.done():
            serving.result()
    finally:
        serving.cancel()
        await workers.stop()
        shutil.rmtree(metrics_directory, ignore_errors=True)
        for holder in reserved:
            holder.close()


async def _serve(workers: WorkerPool, settings: Settings, model_count: int, say: Callable[[str], None]) -> None:
    say(f"waiting for the encoder at {settings.triton_target}")
    await workers.start()
    say(f"ready  gRPC {settings.grpc_address}  HTTP http://{settings.http_address}  {model_count} model(s)")
    await workers.keep_serving()
