"""`polarvec-server gateway`: the gateway workers alone, in front of a tritonserver that somebody else runs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

from polarvec_server.config import Settings
from polarvec_server.cores import available_cores, share_cores
from polarvec_server.deployment import read_deployment
from polarvec_server.processes import check_doors, reserve_ports, tell_doors, until_signal
from polarvec_server.telemetry import Metrics
from polarvec_server.worker_pool import WorkerPool, make_worker_pool


async def run_gateway(settings: Settings, deployment: Path, say: Callable[[str], None]) -> None:
    """Serves until SIGINT or SIGTERM; a second one skips the draining. Raises ConfigError if it cannot start."""
    models = read_deployment(deployment)
    check_doors(settings)
    reserved = reserve_ports(settings)
    count = share_cores(settings, available_cores(), "elsewhere").workers
    workers = make_worker_pool(settings, deployment, settings.triton_target, count, Metrics().worker_restarts.inc)
    stop = until_signal(workers.kill)
    serving = asyncio.create_task(_serve(workers, settings, len(models), say))
    try:
        await asyncio.wait({serving, stop}, return_when=asyncio.FIRST_COMPLETED)
        if serving.done():
            serving.result()
    finally:
        serving.cancel()
        await workers.stop()
        for holder in reserved:
            holder.close()


async def _serve(workers: WorkerPool, settings: Settings, model_count: int, say: Callable[[str], None]) -> None:
    say(f"waiting for the encoder at {settings.triton_target}")
    await workers.start()
    say(f"ready  {tell_doors(settings)}  {model_count} model(s)")
    await workers.keep_serving()
