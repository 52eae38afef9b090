"""tritonclient on tritonserver itself: prompts, tokenizes, packs and normalises on its own, as the gateway would."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING

from protocol import Embed, batches, run

if TYPE_CHECKING:
    import numpy as np


def connect(job: dict) -> Embed:
    """Connects the client and loads the tokenizer; `way` is sequential or threads."""
    import numpy as np
    from tokenizers import Tokenizer
    from tritonclient.grpc import InferenceServerClient, InferInput

    tokenizer = Tokenizer.from_file(job["tokenizer_file"])
    tokenizer.no_padding()
    tokenizer.no_truncation()
    client = InferenceServerClient(job["triton_target"])

    def tensor(name: str, values: np.ndarray, datatype: str) -> InferInput:
        made = InferInput(name, list(values.shape), datatype)
        made.set_data_from_numpy(values)
        return made

    def call(texts: Sequence[str]) -> np.ndarray:
        encoded = tokenizer.encode_batch_fast([job["prompt"] + text for text in texts])
        ids = [encoding.ids for encoding in encoded]
        lengths = np.fromiter(map(len, ids), np.int32, len(ids))
        token_ids = np.fromiter(itertools.chain.from_iterable(ids), np.int32, int(lengths.sum()))
        inputs = [
            tensor("token_ids", token_ids[None], "INT32"),
            tensor("lengths", lengths[None], "INT32"),
            tensor("tag", np.zeros((1, 1), np.int64), "INT64"),
        ]
        vectors = client.infer("encoder_0", inputs).as_numpy("embeddings")[0]
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)

    if job["way"] == "sequential":
        return lambda texts: np.concatenate([call(batch) for batch in batches(texts, job["batch_size"])])
    from concurrent.futures import ThreadPoolExecutor

    pool = ThreadPoolExecutor(job["in_flight"])
    return lambda texts: np.concatenate(list(pool.map(call, batches(texts, job["batch_size"]))))


if __name__ == "__main__":
    run(connect)
