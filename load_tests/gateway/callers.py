"""A process of callers that send ready-made bytes: closed loop, for a fixed time, with next to no work of its own.

Reads a job as JSON on standard input: target, payloads (base64), callers, connections, seconds; prints calls,
seconds, cpu_s and the latencies' percentiles.
"""

from __future__ import annotations

import asyncio
import base64
import itertools
import json
import os
import sys
import time

import grpc

_METHOD = "/polarvec.v1.EmbeddingService/Embed"


async def load(job: dict) -> dict:
    """Runs a job and returns what it did."""
    payloads = itertools.cycle([base64.b64decode(payload) for payload in job["payloads"]])
    # Connections of their own, so that the kernel spreads them over the workers of one port.
    options = [("grpc.use_local_subchannel_pool", 1), ("grpc.max_receive_message_length", 64 << 20)]
    channels = [grpc.aio.insecure_channel(job["target"], options=options) for _ in range(job["connections"])]
    latencies_ms: list[float] = []
    started = time.monotonic()
    ends = started + job["seconds"]

    async def caller(channel: grpc.aio.Channel) -> None:
        call = channel.unary_unary(_METHOD)
        while (sent := time.monotonic()) < ends:
            await call(next(payloads), timeout=60)
            latencies_ms.append((time.monotonic() - sent) * 1e3)

    await asyncio.gather(*(caller(channels[number % len(channels)]) for number in range(job["callers"])))
    seconds = time.monotonic() - started
    latencies_ms.sort()
    for channel in channels:
        await channel.close()
    return {
        "calls": len(latencies_ms),
        "seconds": seconds,
        "cpu_s": sum(os.times()[:2]),
        "p50_ms": latencies_ms[len(latencies_ms) // 2],
        "p99_ms": latencies_ms[int(len(latencies_ms) * 0.99)],
    }


if __name__ == "__main__":
    try:
        print(json.dumps(asyncio.run(load(json.load(sys.stdin)))))
    except grpc.aio.AioRpcError as error:
        sys.exit(f"{error.code().name}: {error.details()}")
    except KeyboardInterrupt:
        sys.exit(130)
