"""Writes safetensors files piece by piece, so that weights of any size need little memory."""

import json
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Tensor:
    """One tensor to be written.

    Attributes:
        name: Its name in the file.
        shape: Its shape.
        pieces: Called once; gives its numbers in order, float32, in pieces of any size.
    """

    name: str
    shape: tuple[int, ...]
    pieces: Callable[[], Iterable[NDArray[np.float32]]]


def write_weights(path: Path, tensors: Sequence[Tensor]) -> None:
    """Writes float32 tensors as https://github.com/huggingface/safetensors has it: header length, header, numbers.

    Raises:
        ValueError: A tensor's pieces are not as many numbers as its shape says.
        OSError: The file cannot be written.
    """
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    end = 0
    for tensor in tensors:
        start, end = end, end + 4 * math.prod(tensor.shape)
        header[tensor.name] = {"dtype": "F32", "shape": list(tensor.shape), "data_offsets": [start, end]}
    head = json.dumps(header, separators=(",", ":")).encode()
    head += b" " * (-len(head) % 8)
    with path.open("wb") as file:
        file.write(len(head).to_bytes(8, "little") + head)
        for tensor in tensors:
            count = 0
            for piece in tensor.pieces():
                file.write(np.ascontiguousarray(piece, dtype="<f4").data)
                count += piece.size
            if count != math.prod(tensor.shape):
                raise ValueError(f"{tensor.name}: {count} numbers for the shape {tensor.shape}")
