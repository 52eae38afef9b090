"""Polarvec as its users have it: the SDK, gRPC, the gateway and Triton, all on this machine's cores."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from polarvec import AsyncClient, Client
from protocol import Runner, serve

sys.path.append(str(Path(__file__).resolve().parents[2]))
from own_server import OwnServer, roomy_queue


class Polarvec(Runner):
    """`precision` is what the server is told; it puts the prompts before the texts itself."""

    own_prompts = True

    def __init__(self) -> None:
        self._running = contextlib.ExitStack()

    def load(self, job: dict) -> dict:
        os.environ["POLARVEC_ENGINE_THREADS"] = str(job["threads"])
        # At an arrival rate the server has the queue that it has by default, and refuses what does not fit. Texts come
        # again there, so that a cache of vectors, which no other row has, would be all that is measured.
        settings = {"cache_bytes": "0"} if job.get("door") else roomy_queue()
        server = OwnServer(job["model"], precision=job["precision"], openai_port="0", **settings)
        self._server = self._running.enter_context(server)
        self._callers = job["callers"]
        self._client = self._running.enter_context(Client(self._server.target, timeout_s=300))
        model = self._client.model()
        said = {"format": model.precision, "counts_itself": False, "address": self._server.target}
        return said | ({"address": self._server.triton_target} if job.get("door") == "triton" else {})

    def encode(self, texts: Sequence[str], batch_size: int) -> np.ndarray:
        return asyncio.run(self._encode(texts, batch_size))

    async def _encode(self, texts: Sequence[str], batch_size: int) -> np.ndarray:
        calls = [list(texts[start : start + batch_size]) for start in range(0, len(texts), batch_size)]
        vectors: dict[int, np.ndarray] = {}
        turns = iter(range(len(calls)))
        async with AsyncClient(self._server.target, timeout_s=300) as client:

            async def caller() -> None:
                for turn in turns:
                    vectors[turn] = await client.embed_documents(calls[turn], truncation="end")

            await asyncio.gather(*(caller() for _ in range(self._callers)))
        return np.concatenate([vectors[turn] for turn in range(len(calls))])

    def query(self, text: str) -> np.ndarray:
        return self._client.embed_queries(text)

    def stop(self) -> None:
        self._running.close()


if __name__ == "__main__":
    serve(Polarvec())
