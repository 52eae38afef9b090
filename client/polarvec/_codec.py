"""Bytes of an EmbedResponse to numpy arrays, without any I/O."""

from __future__ import annotations

from typing import Any

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
    data = response.embeddings  # Once: protobuf copies the bytes whenever they are asked for.
    if columns <= 0 or len(data) != wanted:
        raise ServerError(
            f"The server sent {len(data)} bytes where {text_count} vectors of {response.dimensions} "
            f"dimensions in {name} take {wanted}; report this with the versions of both sides."
        )
    rows: NDArray[Any] = np.frombuffer(data, dtype=dtype).reshape(text_count, columns)
    rows = rows.astype(rows.dtype.newbyteorder("="), copy=False)
    if name != "int8":
        return rows
    if len(response.scales) != text_count:
        raise ServerError(f"The server sent {len(response.scales)} scales for {text_count} int8 vectors; report this.")
    return Int8Embeddings(values=rows, scales=np.array(response.scales, dtype=np.float32))


class Joined:
    """Parts of one call one after another in fresh writable arrays, so that no answer is kept until the last came."""

    def __init__(self, text_count: int) -> None:
        """Makes the arrays when the first part says what they hold."""
        self._text_count = text_count
        self._filled_count = 0
        self._rows: NDArray[Any] | None = None
        self._scales: NDArray[np.float32] | None = None

    def add(self, part: Embeddings) -> None:
        """Copies the next part in: (Ni, D)."""
        rows = part.values if isinstance(part, Int8Embeddings) else part
        if self._rows is None:
            self._rows = np.empty((self._text_count, rows.shape[1]), rows.dtype)
            self._scales = np.empty(self._text_count, np.float32) if isinstance(part, Int8Embeddings) else None
        place = slice(self._filled_count, self._filled_count + len(rows))
        self._rows[place] = rows
        if isinstance(part, Int8Embeddings) and self._scales is not None:
            self._scales[place] = part.scales
        self._filled_count += len(rows)

    @property
    def embeddings(self) -> Embeddings:
        """All parts: (N, D), once every one of the N texts is there."""
        if self._rows is None or self._filled_count != self._text_count:
            raise AssertionError(f"{self._filled_count} of {self._text_count} vectors are there")
        return self._rows if self._scales is None else Int8Embeddings(values=self._rows, scales=self._scales)


def row(embeddings: Embeddings, index: int) -> Embeddings:
    """One vector, (D,), as a copy: a caller who keeps it does not keep its whole batch alive."""
    if isinstance(embeddings, Int8Embeddings):
        return Int8Embeddings(values=embeddings.values[index].copy(), scales=embeddings.scales[index].copy())
    vector: NDArray[Any] = embeddings[index]
    return vector.copy()
