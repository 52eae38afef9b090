"""A LitServe server over sentence-transformers, as LitServe's documents show one with batching.

Its OpenAI specification answers 400 to a list of texts once `max_batch_size` is above 1, so the API speaks the same
JSON by itself and joins the lists of several calls into one batch.
"""

from __future__ import annotations

import base64
import json
import sys

import litserve
import numpy as np
from run_sentence_transformers import SentenceTransformers


class Embeddings(litserve.LitAPI):
    """Texts of up to 32 calls in one `encode`, which sorts them by length and cuts batches of 32."""

    def __init__(self, job: dict) -> None:
        super().__init__(
            max_batch_size=job["max_batch_size"], batch_timeout=job["batch_timeout_s"], api_path="/v1/embeddings"
        )
        self._job = job

    def setup(self, device: str) -> None:
        self._model = SentenceTransformers()
        self._model.load(self._job)

    def decode_request(self, request: dict) -> list[str]:
        return request["input"]

    def batch(self, inputs: list[list[str]]) -> tuple[list[str], list[int]]:
        return [text for texts in inputs for text in texts], [len(texts) for texts in inputs]

    def predict(self, batch: tuple[list[str], list[int]]) -> tuple[np.ndarray, list[int]]:
        texts, counts = batch
        return self._model.encode(texts, 32), counts

    def unbatch(self, output: tuple[np.ndarray, list[int]]) -> list[np.ndarray]:
        vectors, counts = output
        return np.split(vectors, np.cumsum(counts)[:-1])

    def encode_response(self, output: np.ndarray) -> dict:
        rows = [base64.b64encode(vector.astype("<f4").tobytes()).decode() for vector in output]
        return {"data": [{"index": index, "embedding": row} for index, row in enumerate(rows)]}


if __name__ == "__main__":
    job = json.loads(sys.argv[1])
    server = litserve.LitServer(Embeddings(job), accelerator="cpu")
    server.run(host="127.0.0.1", port=job["port"], log_level="error", generate_client_file=False)
