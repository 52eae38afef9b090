"""What both kinds of parent process, `serve` and `gateway`, need to know of the machine: cores, ports, signals."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import Callable
from pathlib import Path

from polarvec_server.config import Settings
from polarvec_server.errors import ConfigError


def available_cores() -> int:
    """Returns how many whole cores this process may use: by affinity, and by the container's CPU limit."""
    cores = len(os.sched_getaffinity(0))
    quota = _cgroup_cores()
    return cores if quota is None else max(1, min(cores, int(quota)))


def _cgroup_cores() -> float | None:
    """Reads the CPU limit of cgroup v2 or v1; None if there is none."""
    root = Path("/sys/fs/cgroup")
    try:
        quota, period = (root / "cpu.max").read_text().split()
    except (OSError, ValueError):
        try:
            quota = (root / "cpu" / "cpu.cfs_quota_us").read_text().strip()
            period = (root / "cpu" / "cpu.cfs_period_us").read_text().strip()
        except OSError:
            return None
    return None if quota in ("max", "-1") else int(quota) / int(period)


def worker_count(settings: Settings, *, engine_elsewhere: bool, gpu: bool) -> int:
    """Returns how many gateway workers to run: one a core that the engine leaves free, at least one."""
    if settings.workers:
        return settings.workers
    engine_cores = 0 if engine_elsewhere else 1 if gpu else (settings.engine_threads or available_cores())
    return max(1, available_cores() - engine_cores)


def reserve_ports(settings: Settings) -> list[socket.socket]:
    """Checks host and ports, and keeps the two public ports from other servers.

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
    for name, port in (("POLARVEC_GRPC_PORT", settings.grpc_port), ("POLARVEC_HTTP_PORT", settings.http_port)):
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
