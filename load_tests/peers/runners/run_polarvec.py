"""Polarvec as its users have it: the SDK, gRPC, the gateway and Triton, all on this machine's cores."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from polarvec import AsyncClient, Client
from protocol import Runner, serve

sys.path.append(str(Path(__file__).resolve().parents[2]))
from bench import Server


class Polarvec(Runner):
    """`precision` is what the server is told; it puts the prompts before the texts itself."""

    own_prompts = True
    _server: Server | None = None

    def load(self, job: dict) -> dict:
        os.environ["POLARVEC_ENGINE_THREADS"] = str(job["threads"])
        self._server = Server(job["model"], job["precision"])
        self._callers = job["callers"]
        self._client = Client(self._server.target, timeout_s=300)
        model = self._client.model()
        return {"format": model.precision}

    def encode(self, texts: Sequence[str], batch_size: int) -> np.ndarray:
        return asyncio.run(self._encode(texts, batch_size))

    async def _encode(self, texts: Sequence[str], batch_size: int) -> np.ndarray:
        assert self._server is not None
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
        if self._server:
            self._client.close()
            self._server.stop()


if __name__ == "__main__":
    serve(Polarvec())
