"""Part `served`: `polarvec-server serve` under load, its client on the same machine."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import signal
import socket
import statistics
import subprocess
import sys
import time
from typing import Any

from measuring import say
from model import words
from scale import Scale

_TEXTS_A_CALL = 32
_READY_TIMEOUT_S = 240


def run(scale: Scale, earlier: dict[str, Any]) -> dict[str, Any]:
    """Start it, measure, end it."""
    missing = [
        name for name in ("polarvec", "polarvec_server", "tritonclient") if importlib.util.find_spec(name) is None
    ]
    if missing:
        raise ModuleNotFoundError(f"not installed here: {', '.join(missing)}")
    ports = [_free_port(), _free_port()]
    process = _start(scale, ports)
    try:
        _await_ready(process)
        return asyncio.run(_measure(scale, f"127.0.0.1:{ports[0]}"))
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()


def _start(scale: Scale, ports: list[int]) -> subprocess.Popen[str]:
    engine = {} if scale.dry else {"POLARVEC_ENGINE": "cuda", "POLARVEC_PRECISION": "bf16"}
    return subprocess.Popen(
        [sys.executable, "-m", "polarvec_server.cli", "serve", str(scale.folder)],
        env={
            **os.environ,
            "POLARVEC_QUEUE_TOKENS": str(4 << 20),
            "POLARVEC_GRPC_PORT": str(ports[0]),
            "POLARVEC_HTTP_PORT": str(ports[1]),
            **engine,
        },
        stdout=subprocess.PIPE,
        text=True,
    )


def _await_ready(process: subprocess.Popen[str]) -> None:
    """Read what the server prints until it says that it is ready; SIGALRM ends a server that never does."""
    signal.signal(signal.SIGALRM, signal.default_int_handler)
    signal.alarm(_READY_TIMEOUT_S)
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("ready"):
            signal.alarm(0)
            say(f"  {line.strip()}")
            return
    raise RuntimeError(f"the server ended with {process.wait()} before it was ready")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def _measure(scale: Scale, target: str) -> dict[str, Any]:
    from polarvec import AsyncClient

    found: dict[str, Any] = {"rows": []}
    callers = 4 if scale.dry else 48
    async with AsyncClient(target, timeout_s=120) as client:
        for length in (16, 128, 512):
            calls = [[words(length, 100 * call + text) for text in range(_TEXTS_A_CALL)] for call in range(16)]
            await _closed_loop(client, calls, callers, scale.short_s)
            rate = await _closed_loop(client, calls, callers, 2 * scale.short_s)
            found["rows"].append({"length": length, "callers": callers, "tokens_per_s": rate})
            say(f"  {found['rows'][-1]}")
        found["query_ms"] = await _query_ms(client, 10 if scale.dry else 400)
        say(f"  one query of 16 tokens at a time, ms: {found['query_ms']}")
    return found


async def _closed_loop(client: Any, calls: list[list[str]], callers: int, seconds: float) -> float:
    started, tokens, turn = time.monotonic(), 0, 0

    async def caller() -> None:
        nonlocal tokens, turn
        while time.monotonic() - started < seconds:
            texts = calls[turn % len(calls)]
            turn += 1
            answer = await client.embed_detailed(texts, input_type="document")
            tokens += sum(answer.token_counts)

    await asyncio.gather(*(caller() for _ in range(callers)))
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
