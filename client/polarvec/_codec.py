"""Bytes of an EmbedResponse to numpy arrays, without any I/O."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from polarvec_proto.v1 import embedding_pb2 as pb

from polarvec._errors import ServerError
from polarvec._types import Embeddings, Encoding, Int8Embeddings

_BITS_A_BYTE = 8

_NAMES: tuple[tuple[pb.Encoding, Encoding, str], ...] = (
    (pb.ENCODING_FLOAT32, "float32", "<f4"),
    (pb.ENCODING_FLOAT16, "float16", "<f2"),
    (pb.ENCODING_INT8, "int8", "i1"),
    (pb.ENCODING_BINARY, "binary", "u1"),
)


def encoding_name(response: pb.EmbedResponse) -> Encoding:
    """The encoding of a response.

    Raises:
        ServerError: The server speaks one that this client does not know.
    """
    for number, name, _ in _NAMES:
        if number == response.encoding:
            return name
    raise ServerError(f"The server answered in encoding {response.encoding}, unknown here; upgrade polarvec.")


def decode(response: pb.EmbedResponse, text_count: int) -> Embeddings:
    """The vectors of one response, in the order of its texts.

    Args:
        response: The server's answer.
        text_count: The texts that were asked for.

    Returns:
        (N, D) float32 or float16, (N, D/8) uint8 for binary, or Int8Embeddings. Floats are read-only views of the
        response's bytes where the machine is little-endian.

    Raises:
        ServerError: The bytes are not as many as `text_count` vectors take.
    """
    name = encoding_name(response)
    dtype = next(dtype for _, encoding, dtype in _NAMES if encoding == name)
    columns = response.dimensions // _BITS_A_BYTE if name == "binary" else response.dimensions
    wanted = text_count * columns * np.dtype(dtype).itemsize
    if columns <= 0 or len(response.embeddings) != wanted:
        raise ServerError(
            f"The server sent {len(response.embeddings)} bytes where {text_count} vectors of {response.dimensions} "
            f"dimensions in {name} take {wanted}; report this with the versions of both sides."
        )
    rows: NDArray[Any] = np.frombuffer(response.embeddings, dtype=dtype).reshape(text_count, columns)
    rows = rows.astype(rows.dtype.newbyteorder("="), copy=False)
    if name != "int8":
        return rows
    if len(response.scales) != text_count:
        raise ServerError(f"The server sent {len(response.scales)} scales for {text_count} int8 vectors; report this.")
    return Int8Embeddings(values=rows, scales=np.array(response.scales, dtype=np.float32))


def join(parts: Sequence[Embeddings]) -> Embeddings:
    """Parts of one call one after another, as fresh writable arrays: sum of the Ni, D."""
    if isinstance(parts[0], Int8Embeddings):
        quantized = cast("Sequence[Int8Embeddings]", parts)
        return Int8Embeddings(
            values=np.concatenate([part.values for part in quantized]),
            scales=np.concatenate([part.scales for part in quantized]),
        )
    joined: NDArray[Any] = np.concatenate(cast("Sequence[NDArray[Any]]", parts))
    return joined


def row(embeddings: Embeddings, index: int) -> Embeddings:
    """One vector, (D,), as a copy: a caller who keeps it does not keep its whole batch alive."""
    if isinstance(embeddings, Int8Embeddings):
        return Int8Embeddings(values=embeddings.values[index].copy(), scales=embeddings.scales[index].copy())
    vector: NDArray[Any] = embeddings[index]
    return vector.copy()
