"""transformers in float32, texts one after another without any padding: what every row's vectors are compared to."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from protocol import Runner, serve
from transformers import AutoModel, PreTrainedTokenizerFast


class Reference(Runner):
    """The model as its authors published it."""

    def load(self, job: dict) -> dict:
        torch.set_num_threads(job["threads"])
        self._tokenizer = PreTrainedTokenizerFast.from_pretrained(job["folder"])
        self._model = AutoModel.from_pretrained(job["folder"], dtype=torch.float32).eval()
        self._cls, self._max_tokens = job["pooling"] == "cls", job["max_tokens"]
        return {"format": "float32"}

    def encode(self, texts: Sequence[str], batch_size: int) -> np.ndarray:
        return np.stack([self.query(text) for text in texts])

    def query(self, text: str) -> np.ndarray:
        ids = self._tokenizer(text, truncation=True, max_length=self._max_tokens, return_tensors="pt").input_ids
        with torch.inference_mode():
            states = self._model(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state[0]
        vector = states[0] if self._cls else states.mean(0)
        return (vector / vector.norm()).numpy()


if __name__ == "__main__":
    serve(Reference())
