"""The GPU engine: packs a batch into passes, keeps two of them under way, and hands their vectors out."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from polarvec_encoder.architecture import Architecture, Pooling
from polarvec_encoder.batch import PackedBatch, positions
from polarvec_encoder.cuda.forward import Forward
from polarvec_encoder.cuda.layout import lay_out
from polarvec_encoder.cuda.operators import Gelu, Operators
from polarvec_encoder.cuda.passes import pass_sizes, plan_passes, round_up
from polarvec_encoder.cuda.pipeline import Pass, Pipeline
from polarvec_encoder.cuda.runner import CpuRunner, Runner
from polarvec_encoder.cuda.support import check_support, take_device
from polarvec_encoder.cuda.tuning import Tuning
from polarvec_encoder.cuda.weights import DeviceWeights, load_weights
from polarvec_encoder.weights import open_weights


class CudaEngine:
    """A model on a GPU; see `engine.Engine`."""

    def __init__(
        self,
        folder: Path,
        architecture: Architecture,
        pooling: Pooling,
        precision: str,
        gelu: Gelu,
        device: str = "cuda",
        tuning: Tuning | None = None,
    ) -> None:
        """Load the weights, compile the kernels and capture the graphs.

        Args:
            folder: The model folder.
            architecture: What its config.json says.
            pooling: How token vectors become one.
            precision: "f32", "bf16", "fp16" or "fp8".
            gelu: "erf" is exact; "tanh" comes free with the matrix product.
            device: "cuda" for the current GPU, "cuda:1", or "cpu" for the same forward pass on reference operators.
            tuning: Block shapes and budgets; None takes the defaults.

        Raises:
            ModelRefused: The tensors do not fit the architecture, or the kernels do not fit the model.
            ChoiceRefused: There is no such precision or form of GELU, or no GPU that has it.
        """
        tuning = tuning or Tuning()
        check_support(architecture, precision, gelu, device)
        self._architecture, self._pooling, self._precision, self._gelu = architecture, pooling, precision, gelu
        self._device = take_device(device)
        self._stored = open_weights(folder, architecture)
        with torch.inference_mode():
            self._weights = load_weights(self._stored, architecture, precision, self._device)
        self._sizes = pass_sizes(tuning.pass_tokens)
        self._runner = self._make_runner(self._weights, tuning)
        self._pipeline = Pipeline(self._runner)

    @property
    def dimensions(self) -> int:
        """D, numbers in a vector."""
        return self._architecture.hidden

    @property
    def batches_in_flight(self) -> int:
        """Batches that may be started before the first is finished: one computes while another is packed."""
        return 2

    @property
    def description(self) -> str:
        """What runs, for the log."""
        weights = sum(
            {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in self._weights.tensors}.values()
        )
        on_gpu = self._device.type == "cuda"
        where = torch.cuda.get_device_name(self._device) if on_gpu else "the CPU with reference operators"
        return (
            f"torch {torch.__version__} {self._precision}, {self._gelu} GELU, on {where}, "
            f"passes of {self._sizes[0]:,} to {self._sizes[-1]:,} tokens in {len(self._sizes)} sizes, "
            f"weights {weights / 1e6:,.0f} MB, buffers {self._runner.buffer_bytes / 1e6:,.0f} MB"
        )

    def encode(self, batch: PackedBatch) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
        """Start a batch; iterating, on this or another thread, waits for it. See `engine.Engine`."""
        architecture = self._architecture
        position_ids, last = positions(batch, architecture), self._pooling == "last_token"
        passes = [
            Pass(
                span.first,
                span.last - span.first,
                span.tokens,
                lay_out(batch, position_ids, span, architecture.pad_id, architecture.first_position, last),
            )
            for span in plan_passes(batch.lengths, self._sizes)
        ]
        self._pipeline.submit(passes)
        return _Answers(self._pipeline, passes)

    def settle(self) -> None:
        """Give back the pages of the weight files."""
        self._stored.release_pages()

    def _make_runner(self, weights: DeviceWeights, tuning: Tuning) -> Runner:
        largest, columns = max(self._sizes[-1], round_up(self._architecture.max_tokens)), self._architecture.hidden
        if self._device.type == "cpu":
            from polarvec_encoder.cuda.reference import ReferenceOperators

            return CpuRunner(self._forward(weights, ReferenceOperators(), tuning), largest, columns)
        from polarvec_encoder.cuda.cuda_runner import CudaRunner
        from polarvec_encoder.cuda.triton_operators import TritonOperators

        forward = self._forward(weights, TritonOperators(tuning), tuning)
        return CudaRunner(forward, largest, columns, self._sizes, self._device, tuning.spin)

    def _forward(self, weights: DeviceWeights, operators: Operators, tuning: Tuning) -> Forward:
        return Forward(weights, operators, self._architecture, self._pooling, self._gelu, tuning.residual_in_product)


class _Answers:
    """The vectors of one batch as they are done, in its order."""

    def __init__(self, pipeline: Pipeline, passes: Sequence[Pass]) -> None:
        self._pipeline, self._left = pipeline, deque(passes)

    def __iter__(self) -> _Answers:
        return self

    def __next__(self) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        if not self._left:
            raise StopIteration
        one = self._left.popleft()
        try:
            vectors = self._pipeline.vectors_of(one)
        except BaseException:
            self.close()
            raise
        return np.arange(one.first, one.first + one.texts), vectors

    def close(self) -> None:
        """Drop what has not been read."""
        if self._left:
            self._pipeline.abandon(tuple(self._left))
            self._left.clear()

    def __del__(self) -> None:
        self.close()
