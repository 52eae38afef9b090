"""The CPU engine: runs `openvino_graph` group by group, on as many infer requests as there are streams."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
from numpy.typing import NDArray

from polarvec_encoder.architecture import Architecture, Pooling
from polarvec_encoder.batch import PackedBatch, positions
from polarvec_encoder.conversion import convert
from polarvec_encoder.grouping import Group, plan_groups
from polarvec_encoder.hardware import read_hardware
from polarvec_encoder.openvino_graph import build_graph
from polarvec_encoder.rows import fill_rows, pick_tokens
from polarvec_encoder.weights import Weights, open_weights

# Past these a group gains nothing, and a query waits for it to end: bf16 groups of 512 tokens are 5 to 8 % slower than
# of 1,024, in f32 256 to 1,024 are the same within noise.
_GROUP_TOKENS = {"bf16": 1024, "f32": 512, "int8": 512}


class OpenVinoEngine:
    """A model compiled for this machine's CPU; see `engine.Engine`."""

    def __init__(
        self,
        folder: Path,
        architecture: Architecture,
        pooling: Pooling,
        precision: str,
        threads: int,
        streams: int = 1,
        cache_dir: Path | None = None,
    ) -> None:
        """Map the weights, build the graph and compile it.

        Args:
            folder: The model folder.
            architecture: What its config.json says.
            pooling: How token vectors become one.
            precision: "f32", "bf16" or "int8".
            threads: Threads in all.
            streams: Groups that run side by side, each on its share of the threads. Two streams of one thread are 7 %
                faster than one of two, but a lone query then takes twice as long.
            cache_dir: Where converted weights are kept.

        Raises:
            ModelRefused: The tensors do not fit the architecture.
            EncoderError: There is no room for converted weights.
        """
        self._architecture, self._pooling, self._precision = architecture, pooling, precision
        self._threads, self._streams = threads, min(streams, threads)
        # The graph's constants lie in the mapped files, so these must live as long as the compiled model.
        self._weights: Weights = convert(open_weights(folder, architecture), precision, cache_dir)
        self._inference_precision = _inference_precision(precision)
        self._compiled = ov.Core().compile_model(
            build_graph(architecture, self._weights, pooling, keep_narrow=precision == "bf16"),
            "CPU",
            {
                "INFERENCE_PRECISION_HINT": self._inference_precision,
                "INFERENCE_NUM_THREADS": threads,
                "PERFORMANCE_HINT": "LATENCY" if self._streams == 1 else "THROUGHPUT",
                "NUM_STREAMS": self._streams,
                # Gateway workers run on the same cores; pinned threads would wait for them instead of moving.
                "ENABLE_CPU_PINNING": False,
            },
        )
        # Compiling reads every page once; only those of linear weights are wanted again, when they are packed.
        self._weights.release_pages()
        # Texts that overtake between two groups need up to as many again, which are made when they first do.
        self._free = [self._compiled.create_infer_request() for _ in range(self._streams)]

    @property
    def dimensions(self) -> int:
        """D, numbers in a vector."""
        return self._architecture.hidden

    @property
    def batches_in_flight(self) -> int:
        """Always 1: a batch computes while it is iterated."""
        return 1

    @property
    def description(self) -> str:
        """What runs, for the log."""
        number = self._precision
        if self._precision == "int8":
            number += f" (the rest in {self._inference_precision})"
        streams = f", {self._streams} streams" if self._streams > 1 else ""
        note = f"; {self._weights.note}" if self._weights.note else ""
        return f"OpenVINO {ov.__version__.split('-')[0]} {number}, {self._threads} threads{streams}{note}"

    def encode(self, batch: PackedBatch) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
        """Compute the vectors of a batch; see `engine.Engine`."""
        position_ids = positions(batch, self._architecture)
        running: deque[tuple[Group, Any, Mapping[str, NDArray[Any]]]] = deque()
        groups = plan_groups(batch.lengths, _GROUP_TOKENS[self._precision])
        try:
            for group in groups:
                inputs = self._inputs(group, batch, position_ids)
                if len(running) == self._streams:
                    yield self._finish(running)
                request = self._free.pop() if self._free else self._compiled.create_infer_request()
                # The inputs are shared, so they must live until the request has ended.
                running.append((group, request, inputs))
                request.start_async(inputs, share_inputs=True)
            while running:
                yield self._finish(running)
        finally:
            for _, request, _ in running:
                # One may fail as well; the others must end all the same before their inputs go.
                with suppress(Exception):
                    request.wait()
                self._free.append(request)

    def settle(self) -> None:
        """Give back the pages of the weight files: warm, OpenVINO holds the linear weights in a layout of its own."""
        self._weights.release_pages()

    def _finish(
        self, running: deque[tuple[Group, Any, Mapping[str, NDArray[Any]]]]
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Wait for the oldest group; its request is free again whether it ended well or not."""
        group, request, _ = running.popleft()
        try:
            request.wait()
            # The next pass writes into the same memory.
            return group.texts, np.array(request.get_output_tensor(0).data, np.float32)
        finally:
            self._free.append(request)

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


def _inference_precision(precision: str) -> str:
    """Say what everything but int8 products is computed in; AVX512_BF16 alone is slower than float32 at attention."""
    if precision != "int8":
        return precision
    return "bf16" if "amx_bf16" in read_hardware().flags else "f32"
