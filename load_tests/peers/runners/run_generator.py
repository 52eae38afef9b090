"""The load generator: one process and one event loop, which calls a contestant's server at given times.

Answers `load`, `check` and `drive` on stdin as the runners do, and compares every vector with its text's reference.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from doors import Door, open_door
from open_loop import Outcome, drive

# Enough for the batches of several calls that an engine sees under load, few enough for every queue.
_WARM_UP_CALLS = 8


class Generator:
    """One contestant's load."""

    def __init__(self) -> None:
        """Calls nobody yet."""
        self._open: Door | None = None

    def load(self, job: dict) -> dict:
        """Reads texts and reference vectors of both kinds, and makes the client."""
        self._job = job
        self._texts: dict[str, list[str]] = json.loads(Path(job["texts"]).read_text())
        self._references = {kind: np.load(file) for kind, file in job["references"].items()}
        self._open = open_door(job)
        return {"said": {}, "seconds": 0.0}

    async def check(self) -> dict:
        """Embeds every text once, some calls at a time, and returns the lowest cosine; this is the warm-up, too."""
        lowest = []
        turns = asyncio.Semaphore(_WARM_UP_CALLS)

        async def call(kind: str, texts: list[str]) -> np.ndarray:
            async with turns:
                return await self._door.embed(kind, texts)

        for kind, texts in self._texts.items():
            size = self._job["texts_a_call"][kind]
            calls = [call(kind, texts[start : start + size]) for start in range(0, len(texts), size)]
            cosines = _cosines(np.concatenate(await asyncio.gather(*calls)), self._references[kind])
            lowest.append(float(cosines.min()) if np.isfinite(cosines).all() else 0.0)
        return {"lowest": min(lowest)}

    async def drive(self, calls: Sequence[dict]) -> dict:
        """Runs the open loop over calls of `due_s`, `kind` and `places` (which of the texts)."""

        async def call(number: int) -> np.ndarray:
            one = calls[number]
            return await self._door.embed(one["kind"], [self._texts[one["kind"]][place] for place in one["places"]])

        outcomes = await drive(
            [one["due_s"] for one in calls],
            call,
            max_open=self._job["max_open"],
            timeout_s=self._job["timeout_s"],
            expected_errors=self._door.expected_errors,
        )
        # After the load, so that the comparison takes nothing from the server.
        answers = [self._answer(one, outcome) for one, outcome in zip(calls, outcomes, strict=True)]
        return {"answers": answers}

    async def close(self) -> None:
        """Ends the connections."""
        if self._open:
            await self._open.close()

    @property
    def _door(self) -> Door:
        assert self._open is not None
        return self._open

    def _answer(self, call: dict, outcome: Outcome) -> list:
        problem = outcome.problem
        if outcome.vectors is not None:
            references = self._references[call["kind"]][call["places"]]
            same = outcome.vectors.shape == references.shape
            if not same or not _cosines(outcome.vectors, references).min() >= self._job["min_cosine"]:  # NaN too.
                problem = "wrong vectors"
        return [outcome.latency_ms, problem]


def _cosines(vectors: np.ndarray, references: np.ndarray) -> np.ndarray:
    norms = np.linalg.norm(vectors, axis=1) * np.linalg.norm(references, axis=1)
    return np.sum(vectors * references, axis=1) / norms


async def _answer(generator: Generator, job: dict) -> dict:
    match job["do"]:
        case "load":
            return generator.load(job)
        case "check":
            return await generator.check()
        case "drive":
            return await generator.drive(job["calls"])
        case other:
            raise ValueError(f"There is nothing called {other!r} to do.")


async def main() -> None:
    """Answers until `stop` or the end of stdin."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # Libraries print what they like.
    generator = Generator()
    while (line := await asyncio.to_thread(sys.stdin.readline)) and (job := json.loads(line))["do"] != "stop":
        try:
            answer = await _answer(generator, job)
        except Exception as error:
            traceback.print_exc()
            answer = {"error": f"{type(error).__name__}: {error}"[:500]}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()
    await generator.close()


if __name__ == "__main__":
    # Encoding in parallel would start threads beside the server's.
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    asyncio.run(main())
