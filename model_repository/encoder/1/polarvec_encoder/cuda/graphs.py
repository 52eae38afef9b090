"""Passes as CUDA graphs: one for each slot and size, captured once, replayed with one call."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch

from polarvec_encoder.batch import PackedBatch
from polarvec_encoder.cuda.layout import lay_out, views
from polarvec_encoder.cuda.passes import TOKENS_PER_TEXT, Span
from polarvec_encoder.cuda.runner import ForwardPass
from polarvec_encoder.cuda.slots import Slot

Graphs = Mapping[tuple[int, int], torch.cuda.CUDAGraph]


def run_pass(forward: ForwardPass, slot: Slot, tokens: int) -> None:
    """Compute a pass from a slot's device inputs into its device vectors, on the current stream."""
    slot.vectors[: tokens // TOKENS_PER_TEXT].copy_(forward(views(slot.inputs, tokens)))


def capture_graphs(
    forward: ForwardPass, slots: Sequence[Slot], sizes: Sequence[int], stream: torch.cuda.Stream
) -> Graphs:
    """Capture every size for every slot; keys are (place of the slot, size).

    The largest comes first and all share one memory pool, so that the smaller ones live in its memory. That is safe
    because nothing in the pool outlives a pass and one stream replays them all. Each size runs once before it is
    captured: that compiles kernels and lets the matrix library take its workspace outside the pool.
    """
    pool = torch.cuda.graph_pool_handle()
    graphs: dict[tuple[int, int], torch.cuda.CUDAGraph] = {}
    for tokens in sorted(sizes, reverse=True):
        for place, slot in enumerate(slots):
            slot.write(inputs := _example(tokens))
            with torch.cuda.stream(stream):
                slot.inputs[: inputs.size].copy_(slot.host_inputs[: inputs.size], non_blocking=True)
                run_pass(forward, slot, tokens)
            stream.synchronize()
            graph = torch.cuda.CUDAGraph()
            # Other threads of the process, which Triton may own, must not end a capture by what they call.
            with torch.cuda.graph(graph, pool=pool, stream=stream, capture_error_mode="thread_local"):
                run_pass(forward, slot, tokens)
            graphs[place, tokens] = graph
    return graphs


def _example(tokens: int) -> np.ndarray[tuple[int], np.dtype[np.int32]]:
    """One text of one token, the rest padding: finite everywhere, id and position 0 exist in every model."""
    batch = PackedBatch(np.zeros(1, np.int32), np.ones(1, np.int32))
    return lay_out(batch, np.zeros(1, np.int32), Span(0, 1, tokens), pad_id=0, pad_position=0, last=False)
