"""uvicorn inside the gateway's own event loop, on a port that all workers share."""

from __future__ import annotations

import asyncio
import contextlib
import math
import socket
from collections.abc import Iterator

import uvicorn
from starlette.applications import Starlette
from uvicorn.protocols.http.h11_impl import H11Protocol

from polarvec_server.edge.tls import TlsFiles

# As many as the gRPC door lets in.
_CONNECTIONS = 4096
# A connection without a call gets this to twice this for the headers of its next, or to take some more of an answer.
_PATIENCE_S = 30.0


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
                http=_Connection,
                ws="none",
                log_config=None,
                # Its warnings are of what callers do wrong, up to two lines a request: Java's offer HTTP/2 with each.
                log_level="error",
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


class _Connection(H11Protocol):
    """uvicorn's, except that it ends when nothing moves: silent callers would take all places of the door."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begins to watch."""
        super().connection_made(transport)
        self._watch = self.loop.call_later(_PATIENCE_S, self._check, (None, 0))

    def connection_lost(self, exc: Exception | None) -> None:
        """Ends to watch."""
        self._watch.cancel()
        super().connection_lost(exc)

    def _check(self, before: object) -> None:
        """Ends a connection that is as it was at the last look: no call, no new one, and nothing taken of an answer."""
        calls = self.cycle is not None and not self.cycle.response_complete
        now = None if calls else (self.cycle, self.transport.get_write_buffer_size())
        if now is not None and now == before:
            self.transport.abort()
        else:
            self._watch = self.loop.call_later(_PATIENCE_S, self._check, now)


def _listen(host: str, port: int) -> socket.socket:
    # asyncio turns Nagle's algorithm off only for sockets that name their protocol; with it every answer waits 40 ms.
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    with contextlib.suppress(AttributeError):
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((host, port))
    return listener
