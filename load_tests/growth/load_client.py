"""The load: one asyncio process with a few connections and any number of callers, each with one call at a time.

A process of its own, so that its CPU and memory are nobody else's. Takes a job on stdin, says `warm`, waits for a line,
runs, and answers with what it measured. `measured_server.py` is the other end.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import resource
import sys
import time
from collections import Counter
from typing import Any

import numpy as np
from polarvec import AsyncClient, PolarvecError

# A call waits for a full server rather than fail; the SDK's own retries count into its latency.
_TIMEOUT_S = 120.0
_STAGES = ("tokenize_ms", "queue_ms", "inference_ms")


class Load:
    """One job: callers who take the next call from a common list until time is up."""

    def __init__(self, job: dict[str, Any]) -> None:
        self._job = job
        size, texts = job["texts_a_call"], job["texts"]
        self._calls = [texts[start : start + size] for start in range(0, len(texts), size)]
        self._clients = [AsyncClient(job["target"], timeout_s=_TIMEOUT_S) for _ in range(job["channels"])]
        self._latencies_s: list[float] = []
        self._tokens, self._errors, self._stages = 0, Counter[str](), Counter[str]()

    async def run(self) -> dict[str, Any]:
        """Warms up, waits for the word, measures."""
        for number in range(self._job["warm_calls"]):
            await self._call(self._clients[number % len(self._clients)], self._calls[number % len(self._calls)])
        self._latencies_s.clear()
        self._stages.clear()
        self._tokens = 0
        sys.stdout.write("warm\n")
        sys.stdout.flush()
        await asyncio.to_thread(sys.stdin.readline)
        before_bytes, cpu_started, started = _peak_bytes(), time.process_time(), time.monotonic()
        turns = itertools.islice(itertools.count(), self._job["max_calls"] or None)
        until = started + self._job["seconds"]
        await asyncio.gather(*(self._caller(place, turns, until) for place in range(self._job["callers"])))
        wall_s, cpu_s = time.monotonic() - started, time.process_time() - cpu_started
        for client in self._clients:
            await client.close()
        return self._result(wall_s, cpu_s, before_bytes)

    async def _caller(self, place: int, turns: itertools.islice[int], until: float) -> None:
        client = self._clients[place % len(self._clients)]
        for turn in turns:
            await self._call(client, self._calls[turn % len(self._calls)])
            if time.monotonic() >= until:
                return

    async def _call(self, client: AsyncClient, texts: list[str]) -> None:
        sent = time.monotonic()
        try:
            if self._job["way"] == "stream":
                await self._stream(client, texts)
            else:
                await self._list(client, texts)
        except PolarvecError as error:
            self._errors[error.reason or type(error).__name__] += 1
        else:
            self._latencies_s.append(time.monotonic() - sent)

    async def _stream(self, client: AsyncClient, texts: list[str]) -> None:
        async for item in client.embed_stream(texts, input_type=self._job["input_type"], **self._options()):
            if item.error is not None:
                raise item.error
            self._tokens += item.token_count

    async def _list(self, client: AsyncClient, texts: list[str]) -> None:
        result = await client.embed_detailed(texts, input_type=self._job["input_type"], **self._options())
        self._tokens += sum(result.token_counts)
        for call in result.calls:
            for stage in _STAGES:
                self._stages[stage] += getattr(call, stage) or 0.0

    def _options(self) -> dict[str, Any]:
        return {"model": self._job["model"]} if self._job["model"] else {}

    def _result(self, wall_s: float, cpu_s: float, before_bytes: int) -> dict[str, Any]:
        latencies_ms = np.array(self._latencies_s) * 1e3
        calls = len(latencies_ms)
        p50, p99 = np.percentile(latencies_ms, [50, 99]).tolist() if calls else (float("nan"),) * 2
        return {
            "calls": calls,
            "texts": calls * self._job["texts_a_call"],
            "tokens": self._tokens,
            "wall_s": wall_s,
            "client_cpu_s": cpu_s,
            "client_start_bytes": before_bytes,
            "client_peak_bytes": _peak_bytes(),
            "p50_ms": p50,
            "p99_ms": p99,
            "errors": dict(self._errors),
            "stage_ms": {stage: total / max(1, calls) for stage, total in self._stages.items()},
        }


def _peak_bytes() -> int:
    # VmHWM, not ru_maxrss: that one starts with the parent's.
    with open("/proc/self/status", encoding="ascii") as lines:
        for line in lines:
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
    measured = asyncio.run(Load(json.loads(sys.stdin.readline())).run())
    sys.stdout.write(json.dumps(measured) + "\n")
