"""The SDK as its users have it: one list (`documents`), the async client (`async`), or a stream of texts (`stream`)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from protocol import Embed, run

if TYPE_CHECKING:
    import numpy as np


def connect(job: dict) -> Embed:
    """Connects the client; `way` says which method embeds."""
    import numpy as np
    import polarvec

    if job["way"] == "async":
        import asyncio

        loop = asyncio.new_event_loop()
        asynchronous = polarvec.AsyncClient(job["target"])
        return lambda texts: loop.run_until_complete(asynchronous.embed_documents(texts))
    client = polarvec.Client(job["target"])
    if job["way"] == "documents":
        return client.embed_documents

    def stream(texts: Sequence[str]) -> np.ndarray:
        vectors = np.empty((len(texts), job["dimensions"]), np.float32)
        for item in client.embed_stream(texts, input_type="document"):
            vectors[item.index] = item.embedding
        return vectors

    return stream


if __name__ == "__main__":
    run(connect)
