"""The tensors of a model folder: headers of its safetensors files, checked against the architecture, and their data.

Files are mapped, never read whole: a tensor is a view whose pages the engines share with the page cache.
Format: https://huggingface.co/docs/safetensors (u64 header length, JSON header, data).
"""

from __future__ import annotations

import json
import mmap
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from polarvec_encoder.architecture import Architecture
from polarvec_encoder.errors import ModelRefused
from polarvec_encoder.tensor_table import expected_shapes, is_ignored, prefix_of

# What a model folder may hold; I8 is what `conversion` makes of it.
_MODEL_TYPES = ("F32", "F16", "BF16")
ITEM_BYTES = {"F32": 4, "F16": 2, "BF16": 2, "I8": 1}
# A header holds names and offsets only; a longer one is a damaged or hostile file.
_MAX_HEADER_BYTES = 100_000_000


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """Where one tensor lies."""

    file: Path
    dtype: str
    shape: tuple[int, ...]
    offset: int
    """Bytes from the start of the file."""


def weight_files(folder: Path) -> tuple[Path, ...]:
    """List the safetensors files of a model folder: model.safetensors, or the shards that its index names.

    Raises:
        ModelRefused: There are none (pickles do not count), or the index names a file that is missing.
    """
    single, index = folder / "model.safetensors", folder / "model.safetensors.index.json"
    if single.is_file():
        return (single,)
    if not index.is_file():
        pickles = sorted(path.name for suffix in ("bin", "pt", "pth") for path in folder.glob(f"*.{suffix}"))
        if pickles:
            raise ModelRefused(
                f"{folder} holds pickled weights only ({pickles[0]}): convert them to model.safetensors."
            )
        raise ModelRefused(f"{folder} has no model.safetensors: fetch the model again.")
    try:
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise ModelRefused(f"{index} cannot be read: fetch the model again.") from None
    for name in names:
        if not isinstance(name, str) or Path(name).name != name or not name.endswith(".safetensors"):
            raise ModelRefused(f"{index} names a weight file that is not a safetensors file of this folder.")
        if not (folder / name).is_file():
            raise ModelRefused(f"{folder} lacks {name}, which its index names: fetch the model again.")
    return tuple(folder / name for name in names)


def read_header(path: Path) -> Mapping[str, StoredTensor]:
    """Read the tensor directory of one safetensors file without touching the data.

    Raises:
        ModelRefused: The file is cut short, its header is not valid, or a tensor lies outside the file.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            (header_bytes,) = struct.unpack("<Q", file.read(8))
            if not 2 <= header_bytes <= min(_MAX_HEADER_BYTES, size - 8):
                raise ValueError("header length")
            header = json.loads(file.read(header_bytes))
        entries = {name: entry for name, entry in header.items() if name != "__metadata__"}
        return {name: _stored(path, entry, 8 + header_bytes, size) for name, entry in entries.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, struct.error):
        raise ModelRefused(f"{path} is not a whole safetensors file: fetch the model again.") from None


def _stored(path: Path, entry: Mapping[str, Any], data_start: int, size: int) -> StoredTensor:
    begin, end = entry["data_offsets"]
    shape, dtype = tuple(entry["shape"]), entry["dtype"]
    if not all(isinstance(n, int) and n >= 0 for n in (*shape, begin, end)) or begin > end or data_start + end > size:
        raise ValueError("tensor outside the file")
    if dtype in ITEM_BYTES and end - begin != int(np.prod(shape, dtype=np.int64)) * ITEM_BYTES[dtype]:
        raise ValueError("tensor length")
    return StoredTensor(path, dtype, shape, data_start + begin)


@dataclass(frozen=True, slots=True)
class Weights:
    """The checked tensors of one model under their names without any prefix (`embeddings.LayerNorm.weight`, ...)."""

    tensors: Mapping[str, StoredTensor]
    maps: Mapping[Path, mmap.mmap]
    note: str = ""
    """What went another way than asked, for the log."""

    def stored(self, name: str) -> NDArray[Any]:
        """View one tensor in its stored number format; bfloat16 comes as uint16."""
        tensor = self.tensors[name]
        dtype = {"F32": "<f4", "F16": "<f2", "BF16": "<u2", "I8": "<i1"}[tensor.dtype]
        return np.ndarray(tensor.shape, dtype, buffer=self.maps[tensor.file], offset=tensor.offset)

    def float32(self, name: str) -> NDArray[np.float32]:
        """One tensor as aligned float32: the mapped file itself where that is its format, else a copy."""
        stored = self.stored(name)
        if self.tensors[name].dtype == "BF16":
            return (stored.astype(np.uint32) << 16).view(np.float32)
        return np.require(stored, np.float32, ["ALIGNED", "C_CONTIGUOUS"])

    def release_pages(self) -> None:
        """Let the kernel drop the mapped pages from this process; a later access reads them back from the file."""
        for mapped in self.maps.values():
            mapped.madvise(mmap.MADV_DONTNEED)


def check_weights(folder: Path, architecture: Architecture) -> Mapping[str, StoredTensor]:
    """Compare every tensor in the folder's files with what the architecture needs, reading headers only.

    Returns:
        The needed tensors by name without prefix.

    Raises:
        ModelRefused: A tensor is missing, unexpected, has another shape or an unsupported number format.
    """
    found: dict[str, StoredTensor] = {}
    for path in weight_files(folder):
        found.update(read_header(path))
    prefix = prefix_of(found)
    named = {name.removeprefix(prefix): tensor for name, tensor in found.items()}
    needed = {name: tensor for name, tensor in named.items() if not is_ignored(name)}
    expected = expected_shapes(architecture)
    _refuse(folder, "lacks", expected.keys() - needed.keys())
    _refuse(folder, "has the unexpected", needed.keys() - expected.keys())
    for name, shape in expected.items():
        if needed[name].shape != shape:
            raise ModelRefused(
                f"Tensor {name} in {folder} has shape {list(needed[name].shape)}, but config.json needs {list(shape)}."
            )
        if needed[name].dtype not in _MODEL_TYPES:
            raise ModelRefused(f"Tensor {name} in {folder} is {needed[name].dtype}: convert it to F32, F16 or BF16.")
    return needed


def open_weights(folder: Path, architecture: Architecture) -> Weights:
    """Check a folder's tensors and map its files.

    Raises:
        ModelRefused: As `check_weights`, or a file cannot be mapped.
    """
    tensors = check_weights(folder, architecture)
    maps: dict[Path, mmap.mmap] = {}
    for path in {tensor.file for tensor in tensors.values()}:
        try:
            maps[path] = map_file(path)
        except (OSError, ValueError):
            raise ModelRefused(
                f"{path} cannot be mapped into memory: check its permissions and fetch it again."
            ) from None
    return Weights(tensors, maps)


def map_file(path: Path) -> mmap.mmap:
    """Map a whole file; raises OSError or ValueError where that cannot be."""
    with path.open("rb") as file:
        # Copy-on-write, because OpenVINO shares writable arrays only; nothing writes, so pages stay the file's.
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)


def _refuse(folder: Path, problem: str, names: Iterable[str]) -> None:
    listed = sorted(names)
    if listed:
        more = f" and {len(listed) - 1} more" if len(listed) > 1 else ""
        raise ModelRefused(
            f"The weights in {folder} {problem} tensor {listed[0]}{more}: they do not fit its config.json."
        )
