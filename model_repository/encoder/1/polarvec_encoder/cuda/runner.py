"""What a pipeline drives: something that starts passes and can wait for one; here the protocol and the CPU's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from polarvec_encoder.cuda.layout import PassInputs, views
from polarvec_encoder.cuda.passes import TOKENS_PER_TEXT
from polarvec_encoder.cuda.slots import Slot

SLOTS = 2

ForwardPass = Callable[[PassInputs[Tensor]], Tensor]


class Runner(Protocol):
    """Runs passes in the order in which they are started."""

    @property
    def slots(self) -> Sequence[Slot]:
        """The buffers; a pass needs one of its own from its start until its vectors are read."""
        ...

    @property
    def buffer_bytes(self) -> int:
        """Bytes on the device beside the weights."""
        ...

    def start(self, slot: Slot, tokens: int, inputs: NDArray[np.int32], texts: int) -> None:
        """Start a pass.

        Args:
            slot: A free one.
            tokens: Rows of the pass.
            inputs: As from `layout.lay_out`.
            texts: So many vectors are brought back into `slot.host_vectors`.
        """
        ...

    def wait(self, slot: Slot) -> None:
        """Wait until the vectors of the pass in `slot` are there. Any thread may."""
        ...


class CpuRunner:
    """Computes each pass where it is started, in the same static buffers that graphs would read."""

    def __init__(self, forward: ForwardPass, largest: int, columns: int) -> None:
        self._forward = forward
        self.slots: Sequence[Slot] = tuple(Slot(largest, columns, torch.device("cpu")) for _ in range(SLOTS))

    @property
    def buffer_bytes(self) -> int:
        """Bytes of the buffers."""
        return sum(slot.device_bytes for slot in self.slots)

    def start(self, slot: Slot, tokens: int, inputs: NDArray[np.int32], texts: int) -> None:
        """Compute a pass."""
        slot.write(inputs)
        with torch.inference_mode():
            slot.inputs[: inputs.size].copy_(slot.host_inputs[: inputs.size])
            slot.vectors[: tokens // TOKENS_PER_TEXT].copy_(self._forward(views(slot.inputs, tokens)))
            slot.host_vectors[:texts].copy_(slot.vectors[:texts])

    def wait(self, slot: Slot) -> None:
        """Nothing to wait for."""
