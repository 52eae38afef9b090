"""The CPU engine: runs `openvino_graph` group by group on one infer request."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
from numpy.typing import NDArray

from polarvec_encoder.architecture import Architecture, Pooling
from polarvec_encoder.batch import PackedBatch, positions
from polarvec_encoder.grouping import Group, plan_groups
from polarvec_encoder.openvino_graph import build_graph
from polarvec_encoder.rows import fill_rows, pick_tokens
from polarvec_encoder.weights import Weights, open_weights

# Past these a group gains nothing, and a query waits for it to end: bf16 groups of 512 tokens are 5 to 8 % slower than
# of 1,024, in f32 256 to 1,024 are the same within noise.
_GROUP_TOKENS = {"bf16": 1024, "f32": 512}


class OpenVinoEngine:
    """A model compiled for this machine's CPU; see `engine.Engine`."""

    def __init__(
        self, folder: Path, architecture: Architecture, pooling: Pooling, precision: str, threads: int
    ) -> None:
        """Map the weights, build the graph and compile it.

        Args:
            folder: The model folder.
            architecture: What its config.json says.
            pooling: How token vectors become one.
            precision: "f32" or "bf16".
            threads: Threads of a forward pass.

        Raises:
            ModelRefused: The tensors do not fit the architecture.
        """
        self._architecture, self._pooling, self._precision, self._threads = architecture, pooling, precision, threads
        # The graph's constants lie in the mapped files, so these must live as long as the compiled model.
        self._weights: Weights = open_weights(folder, architecture)
        self._compiled = ov.Core().compile_model(
            build_graph(architecture, self._weights, pooling),
            "CPU",
            {
                "INFERENCE_PRECISION_HINT": precision,
                "INFERENCE_NUM_THREADS": threads,
                # One request on all threads: two streams of one are 7 % faster, but a query then takes twice as long.
                "PERFORMANCE_HINT": "LATENCY",
                "NUM_STREAMS": 1,
                # Gateway workers run on the same cores; pinned threads would wait for them instead of moving.
                "ENABLE_CPU_PINNING": False,
            },
        )
        self._request = self._compiled.create_infer_request()

    @property
    def dimensions(self) -> int:
        """D, numbers in a vector."""
        return self._architecture.hidden

    @property
    def description(self) -> str:
        """What runs, for the log."""
        return f"OpenVINO {ov.__version__.split('-')[0]} {self._precision}, {self._threads} threads"

    def encode(self, batch: PackedBatch) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
        """Compute the vectors of a batch; see `engine.Engine`."""
        position_ids = positions(batch, self._architecture)
        for group in plan_groups(batch.lengths, _GROUP_TOKENS[self._precision]):
            inputs = self._inputs(group, batch, position_ids)
            outputs = self._request.infer(inputs, share_inputs=True, share_outputs=True)
            # The next pass writes into the same memory.
            yield group.texts, np.array(outputs[0], np.float32)

    def settle(self) -> None:
        """Give back the pages of the weight files: warm, OpenVINO holds the linear weights in a layout of its own."""
        self._weights.release_pages()

    def _inputs(self, group: Group, batch: PackedBatch, position_ids: NDArray[np.int32]) -> Mapping[str, NDArray[Any]]:
        rows = fill_rows(group, batch, position_ids, self._architecture.pad_id)
        inputs: dict[str, NDArray[Any]] = {
            "token_ids": rows.token_ids,
            "position_ids": rows.position_ids,
            "mask": rows.mask,
        }
        if self._pooling == "mean":
            inputs["places"] = rows.places
            inputs["owners"] = np.repeat(np.arange(rows.lengths.size, dtype=np.int32), rows.lengths)
            inputs["count"] = np.array(rows.lengths.size, np.int32)
            inputs["scales"] = (np.float32(1) / rows.lengths.astype(np.float32))[:, None]
            return inputs
        picks = pick_tokens(group, rows, last=self._pooling == "last_token")
        return inputs | {"picks": picks.places, "pick_mask": picks.mask, "answers": picks.answers}
