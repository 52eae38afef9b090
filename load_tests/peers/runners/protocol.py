"""The runner's half of the protocol: one JSON object a line comes in, one goes out; nothing else reaches stdout."""

from __future__ import annotations

import json
import os
import sys
import time
import traceback
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path

import numpy as np


class Runner(ABC):
    """One peer in one process, with whatever child processes it starts."""

    own_prompts = False
    """The peer puts the model's prompts before the texts by itself."""

    @abstractmethod
    def load(self, job: dict) -> dict:
        """Loads the model.

        Args:
            job: `folder` (the model's), `pooling` ("mean" or "cls"), `threads`, `cache` (a folder of its own that
                outlives the process, for exports), `exports` (the folder of all those folders), `max_tokens`,
                `callers`, and the settings of the row.

        Returns:
            What the table says beside the row, such as the number format that the engine really uses.
        """

    @abstractmethod
    def encode(self, texts: Sequence[str], batch_size: int) -> np.ndarray:
        """Embeds texts of all lengths; (N, D) in the order given."""

    @abstractmethod
    def query(self, text: str) -> np.ndarray:
        """Embeds one text as its user would; (D,)."""

    def padding(self, texts: Sequence[str], batch_size: int) -> float | None:
        """Tokens computed for each real one, where that is known."""
        return None

    def stop(self) -> None:
        """Ends what `load` started."""
        return


def serve(runner: Runner) -> None:
    """Answers `load`, `encode`, `query`, `padding` and `stop`, until stdin ends."""
    prompts = {"document": "", "query": ""}
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # Libraries print what they like.
    try:
        for line in sys.stdin:
            job = json.loads(line)
            if job["do"] == "stop":
                break
            try:
                if job["do"] == "load" and not runner.own_prompts:
                    prompts = job["prompts"]
                answer = _do(runner, job, prompts)
            except Exception as error:
                traceback.print_exc()
                answer = {"error": f"{type(error).__name__}: {error}"[:500]}
            answers.write(json.dumps(answer) + "\n")
            answers.flush()
    finally:
        runner.stop()


def _do(runner: Runner, job: dict, prompts: dict[str, str]) -> dict:
    prompt = prompts["query" if job["do"] == "query" else "document"]
    texts = [prompt + text for text in json.loads(Path(job["texts"]).read_text())] if "texts" in job else []
    started = time.perf_counter()
    match job["do"]:
        case "load":
            said = runner.load(job)
            return {"seconds": time.perf_counter() - started, "said": said}
        case "encode":
            vectors = runner.encode(texts, job["batch_size"])
            seconds = time.perf_counter() - started
            if job.get("vectors"):
                np.save(job["vectors"], np.asarray(vectors, np.float32))
            return {"seconds": seconds}
        case "query":
            milliseconds = []
            for _ in range(job["times"]):
                started = time.perf_counter()
                vector = runner.query(texts[0])
                milliseconds.append((time.perf_counter() - started) * 1e3)
            np.save(job["vectors"], np.asarray(vector, np.float32).reshape(1, -1))
            return {"milliseconds": milliseconds}
        case "padding":
            return {"padding": runner.padding(texts, job["batch_size"])}
        case other:
            raise ValueError(f"There is nothing called {other!r} to do.")
