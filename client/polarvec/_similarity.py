"""Compares vectors as the server sends them, in every encoding; plain numpy, without any I/O."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from polarvec._types import Int8Embeddings


def cosine_similarity(a: NDArray[Any] | Int8Embeddings, b: NDArray[Any] | Int8Embeddings) -> NDArray[np.float32]:
    """How alike vectors are: 1 means the same direction, 0 nothing in common; a zero vector is like nothing.

    The two sides may differ in encoding: float32, float16 and Int8Embeddings go together. Sums are made in float32.

    Args:
        a: (D,) or (N, D).
        b: (D,) or (M, D).

    Returns:
        float32, -1 to 1: (N, M) for two matrices, (N,) or (M,) for a matrix and a vector, () for two vectors.

    Raises:
        TypeError: One side is packed bits; `hamming_similarity` compares those.
        ValueError: The dimensions differ.
    """
    left, right = _unit("a", a), _unit("b", b)
    _check_columns(left, right, "dimensions")
    # A single product is a scalar, which numpy 1 would clip into float64.
    return np.asarray(np.clip(left @ right.T, -1, 1), dtype=np.float32)


def hamming_similarity(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> NDArray[np.float32]:
    """How alike packed bits are (encoding="binary"): the share of bits that agree.

    Args:
        a: (D/8,) or (N, D/8) uint8.
        b: (D/8,) or (M, D/8) uint8.

    Returns:
        float32, 0 to 1, half for vectors that have nothing in common: (N, M) for two matrices, (N,) or (M,) for a
        matrix and a vector, () for two vectors.

    Raises:
        TypeError: One side is not uint8; `cosine_similarity` compares numbers.
        ValueError: The dimensions differ.
    """
    left, right = _signs("a", a), _signs("b", b)
    _check_columns(left, right, "bits")
    # The product of signs is what agrees less what does not; float32 counts exactly up to 2^24 bits.
    return np.asarray((left @ right.T / left.shape[-1] + 1) / 2, dtype=np.float32)


def _unit(name: str, vectors: NDArray[Any] | Int8Embeddings) -> NDArray[np.float32]:
    # A vector's scale changes its length alone, and that goes anyway.
    array = vectors.values if isinstance(vectors, Int8Embeddings) else np.asarray(vectors)
    if not isinstance(vectors, Int8Embeddings) and array.dtype.kind != "f":
        remedy = "packed bits go to hamming_similarity" if array.dtype == np.uint8 else "give floats or Int8Embeddings"
        raise TypeError(f"{name} is of dtype {array.dtype}; {remedy}")
    rows = _shaped(name, array.astype(np.float32))
    lengths = np.linalg.norm(rows, axis=-1, keepdims=True)
    # Not where > 0: a vector with a NaN in it must not pass for one that is like nothing.
    return np.divide(rows, lengths, out=np.zeros_like(rows), where=lengths != 0)


def _signs(name: str, bits: NDArray[np.uint8]) -> NDArray[np.float32]:
    array = np.asarray(bits)
    if array.dtype != np.uint8:
        raise TypeError(f'{name} is of dtype {array.dtype}; give uint8 as encoding="binary" does')
    return np.unpackbits(_shaped(name, array), axis=-1).astype(np.float32) * 2 - 1


def _shaped(name: str, array: NDArray[Any]) -> NDArray[Any]:
    if array.ndim not in (1, 2) or array.shape[-1] == 0:
        raise ValueError(f"{name} has shape {array.shape}; give (D,) or (N, D)")
    return array


def _check_columns(a: NDArray[Any], b: NDArray[Any], what: str) -> None:
    if a.shape[-1] != b.shape[-1]:
        raise ValueError(f"a has {a.shape[-1]} {what} and b {b.shape[-1]}; compare like with like")
