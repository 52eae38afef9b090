"""Part `served`: `polarvec-server serve` under load, its client on the same machine."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import os
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import IO, Any

import numpy as np
from measuring import say
from model import words
from scale import Scale

_TEXTS_A_CALL = 32
_READY_TIMEOUT_S = 240


def run(scale: Scale, earlier: dict[str, Any]) -> dict[str, Any]:
    """Start it, measure, end it."""
    _check_installed()
    ports = [_free_port(), _free_port()]
    # In the work folder, so that it can be read after the visit.
    with scale.folder.with_name("served.stderr").open("w+", encoding="utf-8") as errors:
        process = _start(scale, ports, errors)
        try:
            _await_ready(process, errors)
            return asyncio.run(_measure(scale, f"127.0.0.1:{ports[0]}"))
        finally:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()


def _check_installed() -> None:
    """Name everything that is missing at once: a visit is too short to find it out one by one.

    Raises:
        ModuleNotFoundError: Something is.
    """
    modules = ("polarvec", "polarvec_server", "tritonclient", "openvino")
    missing = [name for name in modules if importlib.util.find_spec(name) is None]
    if not os.environ.get("POLARVEC_TRITON_BINARY") and shutil.which("tritonserver") is None:
        if importlib.util.find_spec("pytriton") is None:
            missing.append("tritonserver (or nvidia-pytriton)")
        elif int(np.__version__.split(".", 1)[0]) >= 2:
            # Its Python backend misreads the arrays of numpy 2 (docs/decisions/0004-numpy-below-2.md).
            missing.append(f"numpy below 2 (this is {np.__version__})")
    if missing:
        raise ModuleNotFoundError(f"not installed here: {', '.join(missing)}")


def _start(scale: Scale, ports: list[int], errors: IO[str]) -> subprocess.Popen[str]:
    engine = {} if scale.dry else {"POLARVEC_ENGINE": "cuda", "POLARVEC_PRECISION": "bf16"}
    return subprocess.Popen(
        [sys.executable, "-m", "polarvec_server.cli", "serve", str(scale.folder)],
        env={
            **os.environ,
            "POLARVEC_QUEUE_TOKENS": str(4 << 20),
            "POLARVEC_GRPC_PORT": str(ports[0]),
            "POLARVEC_HTTP_PORT": str(ports[1]),
            "POLARVEC_OPENAI_PORT": "0",
            **engine,
        },
        stdout=subprocess.PIPE,
        stderr=errors,
        text=True,
    )


def _await_ready(process: subprocess.Popen[str], errors: IO[str]) -> None:
    """Read what the server prints until it says that it is ready; SIGALRM ends a server that never does."""
    signal.signal(signal.SIGALRM, signal.default_int_handler)
    signal.alarm(_READY_TIMEOUT_S)
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("ready"):
            signal.alarm(0)
            say(f"  {line.strip()}")
            return
    signal.alarm(0)
    code = process.wait()
    errors.seek(0)
    last = ([line.strip() for line in errors if line.strip()] or ["it wrote nothing to stderr"])[-1]
    raise RuntimeError(f"the server ended with {code} before it was ready: {last}")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def _measure(scale: Scale, target: str) -> dict[str, Any]:
    from polarvec import AsyncClient

    callers = 4 if scale.dry else 48
    workers = _worker_count(scale)
    found: dict[str, Any] = {"rows": [], "workers": workers}
    async with contextlib.AsyncExitStack() as stack:
        # A client has one connection, and the kernel gives a connection to one worker by a hash: with four for each
        # worker nearly all workers get some.
        count = min(callers, 4 * workers)
        clients = [await stack.enter_async_context(AsyncClient(target, timeout_s=120)) for _ in range(count)]
        for length in (16, 128, 512):
            calls = [[words(length, 100 * call + text) for text in range(_TEXTS_A_CALL)] for call in range(16)]
            await _closed_loop(clients, calls, callers, scale.short_s)
            rate = await _closed_loop(clients, calls, callers, 2 * scale.short_s)
            found["rows"].append({"length": length, "callers": callers, "tokens_per_s": rate})
            say(f"  {found['rows'][-1]}")
        found["query_ms"] = await _query_ms(clients[0], 10 if scale.dry else 400)
        say(f"  one query of 16 tokens at a time, ms: {found['query_ms']}")
    return found


def _worker_count(scale: Scale) -> int:
    """Workers of the gateway, counted as the server does."""
    from polarvec_server.config import load_settings
    from polarvec_server.cores import available_cores, share_cores

    return share_cores(load_settings(), available_cores(), "cpu" if scale.dry else "gpu").workers


async def _closed_loop(clients: Sequence[Any], calls: list[list[str]], callers: int, seconds: float) -> float:
    started, tokens, turn = time.monotonic(), 0, 0

    async def caller(client: Any) -> None:
        nonlocal tokens, turn
        while time.monotonic() - started < seconds:
            texts = calls[turn % len(calls)]
            turn += 1
            answer = await client.embed_detailed(texts, input_type="document")
            tokens += sum(answer.token_counts)

    await asyncio.gather(*(caller(clients[place % len(clients)]) for place in range(callers)))
    return tokens / (time.monotonic() - started)


async def _query_ms(client: Any, count: int) -> dict[str, float]:
    times = []
    for turn in range(count):
        text = words(16, turn)
        began = time.perf_counter()
        await client.embed_detailed([text], input_type="query")
        times.append((time.perf_counter() - began) * 1e3)
    times = sorted(times[count // 10 :])
    return {"p50": statistics.median(times), "p99": times[int(len(times) * 0.99)]}
