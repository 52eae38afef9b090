"""The yardstick engine: the plain forward pass of `transformers` in float32, to compare the others with."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from numpy.typing import NDArray

from polarvec_encoder.architecture import Architecture, Pooling
from polarvec_encoder.batch import PackedBatch
from polarvec_encoder.errors import ModelRefused
from polarvec_encoder.weights import check_weights

_GROUP_TEXTS = 16


class TorchEngine:
    """`AutoModel` on the CPU; see `engine.Engine`."""

    def __init__(self, folder: Path, architecture: Architecture, pooling: Pooling, threads: int) -> None:
        """Load the model.

        Args:
            folder: The model folder.
            architecture: What its config.json says.
            pooling: How token vectors become one.
            threads: Threads of a forward pass.

        Raises:
            ModelRefused: The tensors do not fit, by our reading or by that of transformers.
        """
        check_weights(folder, architecture)
        torch.set_num_threads(threads)
        transformers.utils.logging.disable_progress_bar()  # type: ignore[no-untyped-call]
        loaded: tuple[Any, dict[str, Any]] = transformers.AutoModel.from_pretrained(
            folder,
            dtype=torch.float32,
            output_loading_info=True,
            local_files_only=True,
            use_safetensors=True,
            trust_remote_code=False,
            add_pooling_layer=False,
        )
        self._model, report = loaded
        for problem in ("missing_keys", "mismatched_keys", "error_msgs"):
            if report.get(problem):
                raise ModelRefused(f"transformers reports {problem} for {folder}: the weights do not fit config.json.")
        self._model.eval()
        self._architecture, self._pooling = architecture, pooling

    @property
    def dimensions(self) -> int:
        """D, numbers in a vector."""
        return self._architecture.hidden

    @property
    def description(self) -> str:
        """What runs, for the log."""
        return f"transformers {transformers.__version__} f32, {torch.get_num_threads()} threads"

    @property
    def batches_in_flight(self) -> int:
        """1: it computes while it is iterated."""
        return 1

    def encode(self, batch: PackedBatch) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
        """Compute the vectors of a batch, short texts first; see `engine.Engine`."""
        order = np.argsort(batch.lengths, kind="stable")
        for first in range(0, order.size, _GROUP_TEXTS):
            texts = order[first : first + _GROUP_TEXTS]
            yield texts, self._forward(batch, texts)

    def settle(self) -> None:
        """Nothing to give back."""

    def _forward(self, batch: PackedBatch, texts: NDArray[np.int64]) -> NDArray[np.float32]:
        lengths = batch.lengths[texts]
        token_ids = np.full((texts.size, int(lengths.max())), self._architecture.pad_id, np.int64)
        for row, start, length in zip(token_ids, batch.starts[texts], lengths, strict=True):
            row[:length] = batch.token_ids[start : start + length]
        mask = (np.arange(token_ids.shape[1]) < lengths[:, None]).astype(np.int64)
        with torch.inference_mode():
            output = self._model(input_ids=torch.from_numpy(token_ids), attention_mask=torch.from_numpy(mask))
        return self._pool(output.last_hidden_state.numpy(), mask, lengths)

    def _pool(
        self, hidden: NDArray[np.float32], mask: NDArray[np.int64], lengths: NDArray[np.int32]
    ) -> NDArray[np.float32]:
        if self._pooling == "cls":
            pooled = hidden[:, 0].copy()
        elif self._pooling == "last_token":
            pooled = hidden[np.arange(lengths.size), lengths - 1]
        else:
            pooled = (hidden * mask[:, :, None].astype(np.float32)).sum(axis=1) / lengths[:, None].astype(np.float32)
        return pooled
