"""The servers that are measured."""

from __future__ import annotations

import grpc
import psutil
from own_server import OwnServer, roomy_queue
from payloads import EMBED


def null_server(model: str, workers: int = 1) -> OwnServer:
    """A server whose gateway, Triton and packs are real and whose engine returns at once."""
    return OwnServer(model, engine="null", openai_port="0", workers=str(workers), **roomy_queue())


def real_server(model: str) -> OwnServer:
    """A server with one worker and the engine that it finds."""
    return OwnServer(model, openai_port="0", workers="1", **roomy_queue())


def processes_of(server: OwnServer) -> list[psutil.Process]:
    """Everything that the server's supervisor runs."""
    return psutil.Process(server.pid).children(recursive=True)


def workers_of(server: OwnServer) -> list[psutil.Process]:
    """The gateway workers of a server."""
    lines = [(process, process.cmdline()) for process in processes_of(server)]
    return [process for process, line in lines if "worker" in line and "polarvec_server.cli" in line]


def answer_of(target: str, payload: bytes) -> bytes:
    """Returns the serialised answer to one call."""
    with grpc.insecure_channel(target, options=[("grpc.max_receive_message_length", 64 << 20)]) as channel:
        return channel.unary_unary(EMBED)(payload, timeout=60)
