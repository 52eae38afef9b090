"""fastembed in process, on the file that sentence-transformers' ONNX backend exported. It does not sort by length."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from fastembed import TextEmbedding
from fastembed.common.model_description import ModelSource, PoolingType
from protocol import Runner, serve


class Fastembed(Runner):
    """A custom model of its registry, read from a folder."""

    def load(self, job: dict) -> dict:
        exported = Path(job["exports"]) / "sentence-transformers-onnx"
        if not (exported / "onnx" / "model.onnx").exists():
            raise FileNotFoundError("there is no exported ONNX file; run the row `st onnx f32` first")
        TextEmbedding.add_custom_model(
            model="local/peer",
            pooling=PoolingType.CLS if job["pooling"] == "cls" else PoolingType.MEAN,
            normalization=True,
            sources=ModelSource(hf="local/peer"),
            dim=job["dimensions"],
            model_file="onnx/model.onnx",
        )
        self._model = TextEmbedding(
            "local/peer", specific_model_path=str(exported), threads=job["threads"], providers=["CPUExecutionProvider"]
        )
        return {"format": "float32"}

    def encode(self, texts: Sequence[str], batch_size: int) -> np.ndarray:
        return np.stack(list(self._model.embed(list(texts), batch_size=batch_size)))

    def query(self, text: str) -> np.ndarray:
        return next(iter(self._model.embed([text])))

    def padding(self, texts: Sequence[str], batch_size: int) -> float:
        tokenizer = self._model.model.tokenizer
        batches = [texts[start : start + batch_size] for start in range(0, len(texts), batch_size)]
        masks = [encoding.attention_mask for batch in batches for encoding in tokenizer.encode_batch(list(batch))]
        return sum(map(len, masks)) / sum(map(sum, masks))


if __name__ == "__main__":
    os.environ["TOKENIZERS_PARALLELISM"] = "true"
    serve(Fastembed())
