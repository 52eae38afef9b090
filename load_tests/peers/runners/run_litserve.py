"""LitServe with sentence-transformers' OpenVINO backend behind it, over HTTP; the server is litserve_server.py."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from child_server import ChildServer, free_port
from http_client import HttpEmbeddings
from protocol import Runner, serve


class LitServe(Runner):
    """`backend` as in run_sentence_transformers.py; `max_batch_size` (calls) and `batch_timeout_s` are LitServe's."""

    _server: ChildServer | None = None

    def load(self, job: dict) -> dict:
        port = free_port()
        script = Path(__file__).with_name("litserve_server.py")
        self._server = ChildServer([sys.executable, str(script), json.dumps({**job, "port": port})])
        self._client = HttpEmbeddings(port, "/v1/embeddings", "peer", job["callers"])
        self._client.wait("/health", 180)
        return {"format": job["backend"], "counts_itself": False, "address": self._client.url}

    def encode(self, texts: Sequence[str], batch_size: int) -> np.ndarray:
        return self._client.embed_all(texts, batch_size)

    def query(self, text: str) -> np.ndarray:
        return self._client.embed([text])[0]

    def stop(self) -> None:
        if self._server:
            self._server.stop()


if __name__ == "__main__":
    serve(LitServe())
