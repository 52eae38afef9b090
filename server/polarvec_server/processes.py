"""What both kinds of parent process, `serve` and `gateway`, do alike: check their doors, take ports, follow signals."""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import Callable

from polarvec_server.config import Settings
from polarvec_server.edge.auth import Authenticator
from polarvec_server.edge.tls import read_tls
from polarvec_server.errors import ConfigError


def check_doors(settings: Settings) -> None:
    """Raises ConfigError if the files of API keys or TLS cannot be used: here once, not in every worker later."""
    Authenticator(settings.api_keys_file)
    read_tls(settings.tls_cert_file, settings.tls_key_file, settings.tls_client_ca_file)


def reserve_ports(settings: Settings) -> list[socket.socket]:
    """Checks host and ports, and keeps the public ports from other servers.

    With SO_REUSEPORT alone two servers could share a port unnoticed.

    Returns:
        Sockets that are bound but do not listen, so they get no connection; keep them open.

    Raises:
        ConfigError: A port is taken, or the address is none of this machine's.
    """
    host, reserved = settings.host, []
    try:
        socket.getaddrinfo(host, None)
        with _new_socket(host) as probe:
            probe.bind((host, 0))
    except OSError as error:
        raise ConfigError(f"POLARVEC_HOST is {host}, where this machine cannot listen ({error.strerror}).") from error
    if settings.triton_metrics_port:
        remedy = "set POLARVEC_TRITON_METRICS_PORT to another port, or to 0."
        _check_free("127.0.0.1", settings.triton_metrics_port, remedy)
    for name, port in settings.public_ports:
        _check_free(host, port, f"set {name} to another port.")
        # With SO_REUSEPORT only the workers can share the port from here on.
        holder = _new_socket(host)
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        holder.bind((host, port))
        reserved.append(holder)
    return reserved


def _check_free(host: str, port: int, remedy: str) -> None:
    """Raises ConfigError if anybody listens there; the socket has no SO_REUSEPORT, so it cannot share."""
    try:
        with _new_socket(host) as probe:
            probe.bind((host, port))
            probe.listen(1)
    except OSError as error:
        raise ConfigError(f"Cannot listen on {host}:{port} ({error.strerror}); {remedy}") from error


def _new_socket(host: str) -> socket.socket:
    new = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    new.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    return new


def tell_doors(settings: Settings) -> str:
    """Returns the addresses for the ready line."""
    doors = f"gRPC {settings.grpc_address}  HTTP http://{settings.http_address}"
    if settings.openai_port:
        scheme = "https" if settings.tls_cert_file else "http"
        doors += f"  OpenAI {scheme}://{settings.openai_address}/v1"
        doors += f"  playground {scheme}://{settings.openai_address}/" if settings.playground else ""
    return doors


def until_signal(hurry: Callable[[], None]) -> asyncio.Future[None]:
    """Returns a future that is done at the first SIGINT or SIGTERM; `hurry` is called at every further one."""
    loop = asyncio.get_running_loop()
    stop: asyncio.Future[None] = loop.create_future()

    def on_signal() -> None:
        if stop.done():
            hurry()
        else:
            stop.set_result(None)

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, on_signal)
    return stop
