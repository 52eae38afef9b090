"""The `openai` package on the HTTP door: one call at a time, or several at once by threads or by its async client."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from protocol import Embed, batches, run

if TYPE_CHECKING:
    import numpy as np


def connect(job: dict) -> Embed:
    """Connects the client; without `encoding_format` it asks for base64 itself and makes lists of floats."""
    import numpy as np
    import openai

    settings = {"base_url": job["openai_url"], "api_key": "none"}
    options: dict[str, Any] = {"model": job["model"]}

    def array(response: Any) -> np.ndarray:
        return np.array([row.embedding for row in response.data], np.float32)

    if job["way"] == "async":
        return _asynchronous(openai.AsyncOpenAI(**settings), options, array, job)
    client = openai.OpenAI(**settings)

    def call(texts: Sequence[str]) -> np.ndarray:
        return array(client.embeddings.create(input=list(texts), **options))

    if job["way"] == "sequential":
        return lambda texts: np.concatenate([call(batch) for batch in batches(texts, job["batch_size"])])
    from concurrent.futures import ThreadPoolExecutor

    pool = ThreadPoolExecutor(job["in_flight"])
    return lambda texts: np.concatenate(list(pool.map(call, batches(texts, job["batch_size"]))))


def _asynchronous(client: Any, options: dict, array: Any, job: dict) -> Embed:
    import asyncio

    import numpy as np

    loop = asyncio.new_event_loop()

    async def embed(texts: Sequence[str]) -> np.ndarray:
        calls = batches(texts, job["batch_size"])
        answers: dict[int, np.ndarray] = {}
        turns = iter(range(len(calls)))

        async def caller() -> None:
            for turn in turns:
                answers[turn] = array(await client.embeddings.create(input=list(calls[turn]), **options))

        await asyncio.gather(*itertools.starmap(caller, [()] * job["in_flight"]))
        return np.concatenate([answers[turn] for turn in range(len(calls))])

    return lambda texts: loop.run_until_complete(embed(texts))


if __name__ == "__main__":
    run(connect)
