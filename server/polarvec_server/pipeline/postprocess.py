"""Brings pooled vectors into the form that the caller asked for: cut, unit length, number format."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from polarvec_server.errors import NonFinite, UnsupportedDimensions
from polarvec_server.pipeline.values import EncodedVectors, Encoding, VectorOptions


def check_dimensions(dimensions: int, max_dimensions: int, step: int = 8) -> int:
    """Returns the number of dimensions to keep; 0 asks for all.

    Raises:
        UnsupportedDimensions: Not a multiple of `step` from `step` to `max_dimensions`.
    """
    if dimensions in (0, max_dimensions):
        return max_dimensions
    if dimensions < step or dimensions > max_dimensions or dimensions % step:
        raise UnsupportedDimensions(dimensions, max_dimensions, step)
    return dimensions


def shape_vectors(pooled: NDArray[np.float32], options: VectorOptions) -> NDArray[np.float32]:
    """Cuts to the leading dimensions, then brings to unit length (cutting afterwards would not leave unit length).

    Args:
        pooled: (N, D) float32 as the encoder made them.
        options: `dimensions` must have passed `check_dimensions`.

    Returns:
        (N, d) float32, unit length unless `unnormalized`.

    Raises:
        NonFinite: A number is NaN or infinite, or a vector has no length.
    """
    vectors = pooled if options.dimensions == 0 else pooled[:, : options.dimensions]
    # In float64: the squares of large float32 numbers overflow. One copy, for einsum and division cast piece by piece.
    exact = vectors.astype(np.float64)
    norms = np.sqrt(np.einsum("nd,nd->n", exact, exact))
    # Written so that NaN fails it too.
    if not (norms.min() > 0 and norms.max() < np.inf):
        raise NonFinite
    if options.unnormalized:
        return np.ascontiguousarray(vectors, np.float32)
    exact /= norms[:, None]
    return exact.astype(np.float32)


def encode_vectors(vectors: NDArray[np.float32], encoding: Encoding) -> EncodedVectors:
    """Writes (N, d) float32 vectors as bytes.

    INT8 is symmetric per vector: scale = largest magnitude / 127. BINARY packs the signs, most significant bit first.

    Raises:
        NonFinite: A number is beyond the range of FLOAT16.
    """
    dimensions = vectors.shape[1]
    if encoding is Encoding.FLOAT16:
        if np.abs(vectors).max(initial=0.0) > np.finfo(np.float16).max:
            raise NonFinite
        return EncodedVectors(vectors.astype("<f2").tobytes(), dimensions, encoding)
    if encoding is Encoding.INT8:
        scales = np.maximum(np.abs(vectors).max(axis=1), np.finfo(np.float32).tiny) / np.float32(127)
        quantised = np.clip(np.rint(vectors / scales[:, None]), -127, 127).astype(np.int8)
        return EncodedVectors(quantised.tobytes(), dimensions, encoding, scales.astype(np.float32))
    if encoding is Encoding.BINARY:
        return EncodedVectors(np.packbits(vectors > 0, axis=1).tobytes(), dimensions, encoding)
    return EncodedVectors(vectors.astype("<f4", copy=False).tobytes(), dimensions, encoding)
