"""Calls an OpenAI-like /embeddings of a peer's server on this machine, several calls at once."""

from __future__ import annotations

import base64
import http.client
import json
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np


class HttpEmbeddings:
    """One connection a caller, kept open; vectors travel in base64 where the server knows how."""

    def __init__(self, port: int, path: str, model: str, callers: int) -> None:
        self._port, self._path, self._model = port, path, model
        self.url = f"http://127.0.0.1:{port}{path}"
        self._connections = threading.local()
        self._callers = ThreadPoolExecutor(callers)

    def wait(self, path: str, seconds: float) -> None:
        """Returns when the server answers 200 at a path.

        Raises:
            RuntimeError: It does not in that time.
        """
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            try:
                connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=5)
                connection.request("GET", path)
                if connection.getresponse().status == 200:
                    return
            except OSError:
                pass
            time.sleep(0.2)
        raise RuntimeError(f"the server did not answer within {seconds:.0f} s")

    def embed_all(self, texts: Sequence[str], texts_a_call: int) -> np.ndarray:
        """(N, D), in the order given."""
        calls = [list(texts[start : start + texts_a_call]) for start in range(0, len(texts), texts_a_call)]
        return np.concatenate(list(self._callers.map(self.embed, calls)))

    def embed(self, texts: list[str]) -> np.ndarray:
        """One call; (N, D)."""
        body = request_body(self._model, texts)
        try:
            answer, content = self._post(body)
        except (http.client.RemoteDisconnected, ConnectionError):  # The server closed it after some idle seconds.
            self._connections.connection.close()
            answer, content = self._post(body)
        if answer.status != 200:
            raise RuntimeError(f"the server answered {answer.status}: {content[:200]!r}")
        return vectors_of(content)

    def _post(self, body: str) -> tuple[http.client.HTTPResponse, bytes]:
        if not hasattr(self._connections, "connection"):
            self._connections.connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=600)
        connection = self._connections.connection
        connection.request("POST", self._path, body, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        return answer, answer.read()


def request_body(model: str, texts: Sequence[str]) -> str:
    """What is posted."""
    return json.dumps({"model": model, "input": list(texts), "encoding_format": "base64"})


def vectors_of(content: bytes) -> np.ndarray:
    """Reads an answer; (N, D)."""
    rows = sorted(json.loads(content)["data"], key=lambda row: row["index"])
    return np.stack([_vector(row["embedding"]) for row in rows])


def _vector(value: str | list) -> np.ndarray:
    if isinstance(value, str):
        return np.frombuffer(base64.b64decode(value), np.float32)
    return np.asarray(value, np.float32).reshape(-1)
