"""One peer in a process tree of its own, asked through its runner for vectors and times."""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np
from script_process import ScriptProcess


class PeerProcess(ScriptProcess):
    """Runs one runner script; every method may raise a `PeerError`."""

    def encode(self, texts: Sequence[str], batch_size: int, vectors: bool = False) -> tuple[float, np.ndarray | None]:
        """Embeds the texts and returns the seconds that the peer took, and the vectors (N, D) if they are wanted."""
        file = self.folder / "vectors.npy"
        job = {"do": "encode", "texts": self._written(texts), "batch_size": batch_size}
        seconds = self.ask(job | ({"vectors": str(file)} if vectors else {}))["seconds"]
        return seconds, np.load(file) if vectors else None

    def query(self, text: str, times: int) -> tuple[list[float], np.ndarray]:
        """Embeds one text so many times, one after another; milliseconds of each, and the vector (1, D)."""
        file = self.folder / "query.npy"
        job = {"do": "query", "texts": self._written([text]), "times": times, "vectors": str(file)}
        return self.ask(job)["milliseconds"], np.load(file)

    def padding(self, texts: Sequence[str], batch_size: int) -> float | None:
        """Tokens computed for each real one, where the runner can tell."""
        return self.ask({"do": "padding", "texts": self._written(texts), "batch_size": batch_size})["padding"]

    def _written(self, texts: Sequence[str]) -> str:
        file = self.folder / "texts.json"
        file.write_text(json.dumps(list(texts)))
        return str(file)
