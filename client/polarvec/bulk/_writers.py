"""Settled rows to JSONL and .npy: spools that only grow, and become the output when the job is done."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from polarvec._errors import InvalidRequest
from polarvec._types import Encoding, Int8Embeddings
from polarvec.bulk._append_file import AppendFile
from polarvec.bulk._rows import Settled

_DTYPES = {"float32": "<f4", "float16": "<f2", "int8": "|i1", "binary": "|u1"}


@dataclass(frozen=True, slots=True)
class Layout:
    """What every row of an output looks like."""

    encoding: Encoding
    dimensions: int
    """Numbers a vector."""
    kept: tuple[str, ...] = ()
    about: Mapping[str, str] | None = None
    """Model, fingerprint and the like, for formats that have room for it."""

    @property
    def columns(self) -> int:
        """Elements of a stored row."""
        return self.dimensions // 8 if self.encoding == "binary" else self.dimensions

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the elements, little-endian."""
        return np.dtype(_DTYPES[self.encoding])

    def stack(self, rows: Sequence[Settled]) -> tuple[NDArray[Any], NDArray[np.float32]]:
        """Vectors (N, columns) and scales (N,); zeros for bad rows, and scales only for int8."""
        values = np.zeros((len(rows), self.columns), dtype=self.dtype)
        scales = np.zeros(len(rows) if self.encoding == "int8" else 0, dtype="<f4")
        for position, settled in enumerate(rows):
            if settled.item is None:
                continue
            embedding = settled.item.embedding
            if isinstance(embedding, Int8Embeddings):
                values[position], scales[position] = embedding.values, embedding.scales
            else:
                values[position] = cast("NDArray[Any]", embedding)
        return values, scales


class Writer(Protocol):
    """Takes rows in order; what is there after `sync` counts, and nothing else."""

    def append(self, rows: Sequence[Settled]) -> None:
        """Takes a block of rows."""
        ...

    def sync(self) -> dict[str, int]:
        """Brings everything to the disk; returns the length of each spool by its name."""
        ...

    def finish(self, output: Path) -> dict[str, Path]:
        """Completes the files; returns by name which file of the job's folder goes where. May be done again."""
        ...

    def close(self) -> None:
        """Closes the files."""
        ...


class JsonlWriter:
    """One JSON object a line; bad rows are left out."""

    _SPOOL = "rows.jsonl"

    def __init__(self, folder: Path, layout: Layout, lengths: Mapping[str, int]) -> None:
        """Opens the spool.

        Args:
            folder: The job's.
            layout: Of the rows.
            lengths: What `sync` last returned; empty for a new job.
        """
        self._layout = layout
        self._spool = AppendFile(folder / self._SPOOL, lengths.get(self._SPOOL, 0))
        self.close = self._spool.close

    def append(self, rows: Sequence[Settled]) -> None:
        """Takes a block of rows."""
        good = [settled for settled in rows if settled.item is not None]
        values, scales = self._layout.stack(good)
        for position, (settled, embedding) in enumerate(zip(good, values.tolist(), strict=True)):
            assert settled.item is not None  # noqa: S101 - for the type checker; filtered above.
            record: dict[str, Any] = {"row": settled.row.number}
            record |= zip(self._layout.kept, settled.row.kept, strict=True)
            record |= {"token_count": settled.item.token_count, "embedding": embedding}
            if len(scales):
                record["scale"] = float(scales[position])
            self._spool.append(json_line(record))

    def sync(self) -> dict[str, int]:
        """Brings everything to the disk."""
        return {self._SPOOL: self._spool.sync()}

    def finish(self, output: Path) -> dict[str, Path]:
        """The spool is the output."""
        self.sync()
        return {self._SPOOL: output}


class NpyWriter:
    """Row i of the array is row i of the input; a bad row is all zeros."""

    _SPOOL = "rows.npy"
    _SCALES = "scales.npy"

    def __init__(self, folder: Path, layout: Layout, lengths: Mapping[str, int]) -> None:
        """Opens the spools; see JsonlWriter."""
        self._layout = layout
        self._folder = folder
        names = (self._SPOOL, self._SCALES) if layout.encoding == "int8" else (self._SPOOL,)
        self._files = {name: AppendFile(folder / name, lengths.get(name, 0)) for name in names}
        self._shapes: dict[str, tuple[tuple[int, ...], np.dtype[Any]]] = {
            self._SPOOL: ((layout.columns,), layout.dtype),
            self._SCALES: ((), np.dtype("<f4")),
        }
        try:
            for name, file in self._files.items():
                if file.byte_count == 0:
                    file.append(self._header(name, 0))
        except BaseException:
            self.close()
            raise

    def append(self, rows: Sequence[Settled]) -> None:
        """Takes a block of rows."""
        for file, block in zip(self._files.values(), self._layout.stack(rows), strict=False):
            file.append(block.tobytes())

    def sync(self) -> dict[str, int]:
        """Brings everything to the disk."""
        return {name: file.sync() for name, file in self._files.items()}

    def finish(self, output: Path) -> dict[str, Path]:
        """Writes how many rows there are into the headers."""
        for name, length in self.sync().items():
            shape, dtype = self._shapes[name]
            row_bytes = dtype.itemsize * int(np.prod(shape, dtype=np.int64))
            header = self._header(name, (length - len(self._header(name, 0))) // row_bytes)
            with (self._folder / name).open("r+b") as file:
                file.write(header)
        self.sync()
        beside = output.with_name(f"{output.stem}.scales{output.suffix}")
        return {name: output if name == self._SPOOL else beside for name in self._files}

    def close(self) -> None:
        """Closes the files."""
        for file in self._files.values():
            file.close()

    def _header(self, name: str, row_count: int) -> bytes:
        """A header whose length does not depend on the number of rows: numpy leaves room for the axis that grows."""
        shape, dtype = self._shapes[name]
        header = BytesIO()
        fields = {"descr": dtype.str, "fortran_order": False, "shape": (row_count, *shape)}
        np.lib.format.write_array_header_1_0(header, fields)  # type: ignore[no-untyped-call]  # numpy has no types for it
        return header.getvalue()


def json_line(record: Mapping[str, Any]) -> bytes:
    """A record as one line of JSON in UTF-8; what JSON has no type for (dates, decimals) becomes a string."""
    try:
        return (json.dumps(record, ensure_ascii=False, default=str) + "\n").encode()
    except ValueError as error:  # A table within itself; cannot come from a file.
        raise InvalidRequest(f"A kept value cannot be written as JSON: {error}.") from None
