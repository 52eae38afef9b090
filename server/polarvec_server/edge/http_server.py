"""uvicorn inside the gateway's own event loop, on a port that all workers share."""

from __future__ import annotations

import asyncio
import contextlib
import math
import socket
from collections.abc import Iterator

import uvicorn
from starlette.applications import Starlette

from polarvec_server.edge.tls import TlsFiles

# As many as the gRPC door lets in.
_CONNECTIONS = 4096


class HttpServer(uvicorn.Server):
    """One HTTP door; the signals are the gateway's."""

    def __init__(self, app: Starlette, host: str, port: int, *, tls: TlsFiles | None = None, drain_s: float) -> None:
        """Binds the port.

        Args:
            app: What answers.
            host: Address to listen on.
            port: Shared with the other workers.
            tls: None for plain HTTP.
            drain_s: Seconds that answers in progress get when `should_exit` is set.
        """
        super().__init__(
            uvicorn.Config(
                app,
                log_config=None,
                access_log=False,
                server_header=False,
                lifespan="off",
                timeout_keep_alive=30,
                limit_concurrency=_CONNECTIONS,
                timeout_graceful_shutdown=math.ceil(drain_s),
                **(tls.uvicorn_options() if tls else {}),
            )
        )
        self._listener = _listen(host, port)
        self.listening = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Opens the port, and says so."""
        await super().startup(sockets)
        self.listening.set()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leaves the signal handlers alone."""
        yield

    async def run_until_stopped(self) -> None:
        """Serves until `should_exit` is set."""
        await self.serve(sockets=[self._listener])


def _listen(host: str, port: int) -> socket.socket:
    # asyncio turns Nagle's algorithm off only for sockets that name their protocol; with it every answer waits 40 ms.
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    with contextlib.suppress(AttributeError):
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((host, port))
    return listener
