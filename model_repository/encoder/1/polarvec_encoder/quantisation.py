"""Number formats that linear weights are converted to before they serve: bfloat16 and int8 with a scale a channel."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

# Symmetric: -128 stays unused, so that a weight and its negative are as exact.
INT8_MAX = 127


def to_bfloat16(weight: NDArray[np.float32]) -> NDArray[np.uint16]:
    """Round to the nearest bfloat16, ties to even, as bit patterns; a NaN stays a NaN.

    Args:
        weight: Any shape.
    """
    bits = np.ascontiguousarray(weight).view(np.uint32)
    rounded: NDArray[np.uint16] = ((bits + (((bits >> 16) & 1) + np.uint32(0x7FFF))) >> 16).astype(np.uint16)
    # Rounding may carry a NaN's payload into the sign.
    return np.where(np.isnan(weight), np.uint16(0x7FC0), rounded)


def to_int8(weight: NDArray[np.float32]) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Quantise symmetrically, one scale an output channel.

    Args:
        weight: (N, K), finite.

    Returns:
        (N, K) int8 within [-127, 127] and (N, 1) scales; their product is the weight, half a scale off at most.
    """
    largest = np.abs(weight).max(axis=1, keepdims=True)
    scales = np.maximum(largest, np.finfo(np.float32).tiny * INT8_MAX) / np.float32(INT8_MAX)
    return np.rint(weight / scales).astype(np.int8), scales.astype(np.float32)
