"""The buffers of one pass on its way to the device and back; there are two, so that two passes can be under way."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from polarvec_encoder.cuda.layout import input_count
from polarvec_encoder.cuda.passes import TOKENS_PER_TEXT


class Slot:
    """Static buffers of the size that the largest pass needs; a pass uses their beginnings."""

    def __init__(self, largest: int, columns: int, device: torch.device) -> None:
        """Allocate.

        Args:
            largest: Tokens of the largest pass.
            columns: D.
            device: Where the forward pass runs; for CUDA the host's side is pinned.
        """
        pinned, texts = device.type == "cuda", largest // TOKENS_PER_TEXT
        self.host_inputs: Tensor = torch.zeros(input_count(largest), dtype=torch.int32, pin_memory=pinned)
        self.host_vectors: Tensor = torch.zeros((texts, columns), dtype=torch.float32, pin_memory=pinned)
        self.inputs: Tensor = torch.zeros(input_count(largest), dtype=torch.int32, device=device)
        self.vectors: Tensor = torch.zeros((texts, columns), dtype=torch.float32, device=device)

    def write(self, inputs: NDArray[np.int32]) -> None:
        """Copy a pass's integers into the host's side."""
        self.host_inputs.numpy()[: inputs.size] = inputs

    def read(self, count: int) -> NDArray[np.float32]:
        """Copy (count, D) vectors out of the host's side, for the buffer is used again."""
        vectors: NDArray[np.float32] = self.host_vectors[:count].numpy().copy()
        return vectors

    @property
    def device_bytes(self) -> int:
        """Bytes on the device."""
        return self.inputs.nbytes + self.vectors.nbytes
