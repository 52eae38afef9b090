"""Lines of a file or of standard input, one at a time and none of them without bound."""

from __future__ import annotations

import codecs
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

MAX_LINE_BYTES = 16 << 20


class Lines:
    """Reads a source once, from its beginning, and knows how far it is."""

    def __init__(self, path: Path | None) -> None:
        """Opens the source.

        Args:
            path: The file; None is standard input.

        Raises:
            OSError: The file cannot be opened.
        """
        self._path = path
        self._file: BinaryIO = sys.stdin.buffer if path is None else path.open("rb")
        self._size = path.stat().st_size if path is not None else 0
        self._read_count = 0

    def fraction(self) -> float | None:
        """How much of the file has been read, 0 to 1; None if its length is not known."""
        return min(1.0, self._read_count / self._size) if self._size else None

    def __iter__(self) -> Iterator[bytes | None]:
        """Lines with their ends; None for one of more than 16 MiB, which is skipped."""
        first = True
        while line := self._file.readline(MAX_LINE_BYTES):
            self._read_count += len(line)
            if first:
                line, first = line.removeprefix(codecs.BOM_UTF8), False
            if len(line) >= MAX_LINE_BYTES and not line.endswith(b"\n"):
                self._skip_rest()
                yield None
            else:
                yield line

    def close(self) -> None:
        """Closes the file; standard input stays open."""
        if self._path is not None:
            self._file.close()

    def _skip_rest(self) -> None:
        while piece := self._file.readline(MAX_LINE_BYTES):
            self._read_count += len(piece)
            if piece.endswith(b"\n"):
                return
