"""Passes on a GPU: copies and computation on three streams, ordered by events, so that they overlap."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from polarvec_encoder.cuda.graphs import Graphs, capture_graphs, run_pass
from polarvec_encoder.cuda.runner import SLOTS, ForwardPass
from polarvec_encoder.cuda.slots import Slot


@dataclass(frozen=True, slots=True)
class _Events:
    arrived: torch.cuda.Event
    computed: torch.cuda.Event
    done: torch.cuda.Event


class CudaRunner:
    """See `runner.Runner`. Nothing here waits for the whole device after construction."""

    def __init__(
        self, forward: ForwardPass, largest: int, columns: int, sizes: Sequence[int], device: torch.device, spin: bool
    ) -> None:
        """Allocate the buffers and capture the graphs.

        Args:
            forward: The forward pass.
            largest: Tokens of the largest pass; above the largest of `sizes` passes run without a graph.
            columns: D.
            sizes: Sizes that get a graph; none is possible.
            device: A CUDA device.
            spin: Wait busily, which is tens of microseconds faster and takes a core meanwhile.
        """
        self._forward, self._device = forward, device
        # Loading leaves the float32 forms of the weights in torch's cache.
        torch.cuda.current_stream(device).synchronize()
        torch.cuda.empty_cache()
        self._before = int(torch.cuda.memory_reserved(device))
        self._arriving, self._computing, self._leaving = (torch.cuda.Stream(device) for _ in range(3))
        self.slots: Sequence[Slot] = tuple(Slot(largest, columns, device) for _ in range(SLOTS))
        self._places = {id(slot): place for place, slot in enumerate(self.slots)}
        self._events = tuple(
            _Events(torch.cuda.Event(), torch.cuda.Event(), torch.cuda.Event(blocking=not spin)) for _ in self.slots
        )
        # The buffers are filled on the default stream, which ours do not wait for.
        torch.cuda.current_stream(device).synchronize()
        with torch.inference_mode():
            self._graphs: Graphs = capture_graphs(forward, self.slots, sizes, self._computing)

    @property
    def buffer_bytes(self) -> int:
        """Bytes that torch holds on the device beside what it held before."""
        return int(torch.cuda.memory_reserved(self._device)) - self._before

    @torch.inference_mode()
    def start(self, slot: Slot, tokens: int, inputs: NDArray[np.int32], texts: int) -> None:
        """Queue a pass: copy in, compute, copy out."""
        # A thread begins with the first GPU as its current one.
        torch.cuda.set_device(self._device)
        try:
            self._queue(slot, tokens, inputs, texts)
        except BaseException:
            # The slot is free again after this, and what was queued still reads and writes its buffers.
            for stream in (self._arriving, self._computing, self._leaving):
                with contextlib.suppress(RuntimeError):
                    stream.synchronize()
            raise

    def wait(self, slot: Slot) -> None:
        """Wait for the copy back."""
        torch.cuda.set_device(self._device)
        self._events[self._places[id(slot)]].done.synchronize()

    def _queue(self, slot: Slot, tokens: int, inputs: NDArray[np.int32], texts: int) -> None:
        place = self._places[id(slot)]
        events = self._events[place]
        slot.write(inputs)
        with torch.cuda.stream(self._arriving):
            slot.inputs[: inputs.size].copy_(slot.host_inputs[: inputs.size], non_blocking=True)
            events.arrived.record(self._arriving)
        with torch.cuda.stream(self._computing):
            self._computing.wait_event(events.arrived)
            graph = self._graphs.get((place, tokens))
            if graph is None:
                run_pass(self._forward, slot, tokens)
            else:
                graph.replay()
            events.computed.record(self._computing)
        with torch.cuda.stream(self._leaving):
            self._leaving.wait_event(events.computed)
            slot.host_vectors[:texts].copy_(slot.vectors[:texts], non_blocking=True)
            events.done.record(self._leaving)
