"""infinity-emb over its HTTP server, torch engine. It sorts what is in its queue by length itself."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from child_server import ChildServer, free_port
from http_client import HttpEmbeddings
from protocol import Runner, serve


class Infinity(Runner):
    """`dtype` is float32 (what it takes on a CPU by itself) or bfloat16."""

    _server: ChildServer | None = None

    def load(self, job: dict) -> dict:
        port = free_port()
        command = [str(Path(sys.executable).with_name("infinity_emb")), "v2", "--model-id", job["folder"]]
        command += ["--served-model-name", "peer", "--engine", "torch", "--device", "cpu", "--dtype", job["dtype"]]
        command += ["--no-bettertransformer", "--no-model-warmup", "--batch-size", "32", "--pooling-method"]
        command += [job["pooling"], "--host", "127.0.0.1", "--port", str(port), "--log-level", "error"]
        # The console script's first line may name a folder that the environment has since left.
        self._server = ChildServer([sys.executable, *command])
        self._client = HttpEmbeddings(port, "/embeddings", "peer", job["callers"])
        self._client.wait("/health", 180)
        return {"format": job["dtype"], "counts_itself": False, "address": self._client.url}

    def encode(self, texts: Sequence[str], batch_size: int) -> np.ndarray:
        return self._client.embed_all(texts, batch_size)

    def query(self, text: str) -> np.ndarray:
        return self._client.embed([text])[0]

    def stop(self) -> None:
        if self._server:
            self._server.stop()


if __name__ == "__main__":
    serve(Infinity())
