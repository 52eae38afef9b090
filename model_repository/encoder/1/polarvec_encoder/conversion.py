"""Linear weights in the number format that serves: converted once, kept in a file that later starts map.

The file is safetensors and ends with a CRC-32 of all before it. It lies in a folder named after the model's
fingerprint, so that other weights or another precision never meet it; a damaged one is written anew.
"""

from __future__ import annotations

import json
import mmap
import os
import struct
import tempfile
import time
import zlib
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from polarvec_encoder.errors import EncoderError, ModelRefused
from polarvec_encoder.quantisation import to_bfloat16, to_int8
from polarvec_encoder.tensor_table import is_linear, scale_name
from polarvec_encoder.weights import ITEM_BYTES, StoredTensor, Weights, map_file

# Part of the file's name: when the content's meaning changes, old files must not be found.
_FORMAT = 1
_CHECKSUM, _CHECKSUM_BYTES = "crc32", 4
_ALIGNMENT = 64
_UNFINISHED, _STALE_S = "converting-", 600.0


def convert(weights: Weights, precision: str, cache_dir: Path | None) -> Weights:
    """Replace linear weights by what `precision` computes with; all other tensors stay as they are stored.

    Args:
        weights: Of the model folder.
        precision: "f32" (nothing to do), "bf16" (if they are not stored so) or "int8" (with scales beside them).
        cache_dir: Where the converted file is kept. None, or a folder that takes no file, means: bf16 is left to the
            engine, int8 weights are made anew in a temporary file.

    Raises:
        ModelRefused: A weight is not finite.
        EncoderError: The int8 weights cannot be written anywhere.
    """
    names = [name for name in weights.tensors if is_linear(name)]
    if precision == "f32" or (precision == "bf16" and all(weights.tensors[name].dtype == "BF16" for name in names)):
        return weights
    layout = _plan(weights, names, precision)
    mapped, note = None, ""
    if cache_dir is not None:
        path = cache_dir / f"{precision}-{_FORMAT}.safetensors"
        try:
            mapped = _open(path, layout) or _make(layout, weights, names, path)
        except OSError as error:
            note = f"converted weights are not kept in {cache_dir}: {error.strerror or error}"
    if mapped is None and precision == "bf16":
        return replace(weights, note=note) if note else weights
    try:
        mapped = mapped or _make(layout, weights, names)
    except OSError as error:
        raise EncoderError(
            f"The {layout.size >> 20} MiB of int8 weights cannot be written to the temporary folder "
            f"({error.strerror or error}): make room there, or give the engine a cache folder."
        ) from None
    return Weights({**weights.tensors, **layout.tensors}, {**weights.maps, layout.place: mapped}, note)


@dataclass(frozen=True, slots=True)
class _Layout:
    """Where everything of the converted file lies."""

    header: bytes
    tensors: dict[str, StoredTensor]
    size: int
    place: Path
    """Names the mapping among those of the model's own files."""


def _plan(weights: Weights, names: Sequence[str], precision: str) -> _Layout:
    """Lay out scales first, so that they are aligned whatever the weights' shapes are."""
    shapes = {name: weights.tensors[name].shape for name in names}
    entries: dict[str, tuple[str, tuple[int, ...]]] = {}
    if precision == "int8":
        entries |= {scale_name(name): ("F32", (shape[0], 1)) for name, shape in shapes.items()}
    entries |= {name: ("I8" if precision == "int8" else "BF16", shape) for name, shape in shapes.items()}
    described, offset = {}, 0
    for name, (dtype, shape) in entries.items():
        end = offset + int(np.prod(shape)) * ITEM_BYTES[dtype]
        described[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [offset, end]}
        offset = end
    end = offset + _CHECKSUM_BYTES
    described[_CHECKSUM] = {"dtype": "U8", "shape": [_CHECKSUM_BYTES], "data_offsets": [offset, end]}
    text = json.dumps(described).encode()
    text += b" " * (-(len(text) + 8) % _ALIGNMENT)
    header, place = struct.pack("<Q", len(text)) + text, Path(f"converted to {precision}")
    tensors = {
        name: StoredTensor(place, dtype, shape, len(header) + int(described[name]["data_offsets"][0]))
        for name, (dtype, shape) in entries.items()
    }
    return _Layout(header, tensors, len(header) + end, place)


def _open(path: Path, layout: _Layout) -> mmap.mmap | None:
    """Map a file that an earlier start left; None where there is none, or not the whole of it."""
    try:
        mapped = map_file(path)
    except (OSError, ValueError):
        return None
    whole = len(mapped) == layout.size and mapped[: len(layout.header)] == layout.header
    return mapped if whole and mapped[-_CHECKSUM_BYTES:] == _checksum(mapped) else None


def _make(layout: _Layout, weights: Weights, names: Sequence[str], path: Path | None = None) -> mmap.mmap:
    """Write the file beside its place and move it there, or a nameless one; raises OSError where it cannot be."""
    folder = path and path.parent
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        _clean_up(folder)
    with tempfile.NamedTemporaryFile(dir=folder, prefix=_UNFINISHED, delete=False) as file:
        try:
            # Writing through a mapping to a full disk is no error but a signal, so the room is taken first.
            os.posix_fallocate(file.fileno(), 0, layout.size)
            with mmap.mmap(file.fileno(), layout.size) as target:
                _fill(target, layout, weights, names)
                target.flush()
            mapped = map_file(Path(file.name))
            if path is not None:
                os.fchmod(file.fileno(), 0o644)
                os.replace(file.name, path)
            return mapped
        finally:
            Path(file.name).unlink(missing_ok=True)


def _clean_up(folder: Path) -> None:
    """Remove what a killed process left half written; writing takes seconds, so a recent one may be another's."""
    for left in folder.glob(f"{_UNFINISHED}*"):
        with suppress(OSError):
            if time.time() - left.stat().st_mtime > _STALE_S:
                left.unlink()


def _fill(target: mmap.mmap, layout: _Layout, weights: Weights, names: Sequence[str]) -> None:
    """Convert tensor by tensor, so that no more than one stands in memory."""
    converted = Weights(layout.tensors, {layout.place: target})
    target[: len(layout.header)] = layout.header
    for name in names:
        weight = weights.float32(name)
        if not np.isfinite(weight).all():
            raise ModelRefused(f"Tensor {name} holds numbers that are not finite: fetch the model again.")
        if scale_name(name) in layout.tensors:
            converted.stored(name)[...], converted.stored(scale_name(name))[...] = to_int8(weight)
        else:
            converted.stored(name)[...] = to_bfloat16(weight)
    target[-_CHECKSUM_BYTES:] = _checksum(target)


def _checksum(mapped: mmap.mmap) -> bytes:
    with memoryview(mapped) as view, view[:-_CHECKSUM_BYTES] as content:
        return zlib.crc32(content).to_bytes(_CHECKSUM_BYTES, "little")
