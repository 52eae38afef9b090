"""The HTTP door for operators: /metrics, /healthz, /readyz."""

from __future__ import annotations

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from polarvec_server.edge.health import Health
from polarvec_server.telemetry import Tally, render_metrics


def make_app(health: Health, tally: Tally) -> Starlette:
    """Returns the application of one worker; /metrics adds up all workers, the others half a second behind."""

    async def metrics(_: Request) -> Response:
        tally.flush()
        return Response(render_metrics(), media_type="text/plain; version=0.0.4; charset=utf-8")

    async def healthz(_: Request) -> Response:
        return JSONResponse({"status": "alive"})

    async def readyz(_: Request) -> Response:
        return JSONResponse({"status": "ready" if health.ready else "not ready"}, 200 if health.ready else 503)

    return Starlette(routes=[Route("/metrics", metrics), Route("/healthz", healthz), Route("/readyz", readyz)])
