"""A file that only grows, and whose length on the disk is known."""

from __future__ import annotations

import os
from pathlib import Path

from polarvec._errors import InvalidRequest


class AppendFile:
    """What stands behind the last `sync` survives a kill; what came later is cut off when the file is opened again."""

    def __init__(self, path: Path, byte_count: int) -> None:
        """Opens the file and cuts it to the length that counts.

        Args:
            path: The file; made if there is none.
            byte_count: The length after the last `sync` that the journal knows of.

        Raises:
            InvalidRequest: The file is shorter than that.
        """
        self._file = path.open("r+b" if path.exists() else "w+b")
        size = os.fstat(self._file.fileno()).st_size
        if size < byte_count:
            self._file.close()
            raise InvalidRequest(f"{path} has lost {byte_count - size} bytes; begin anew with --restart.")
        self._file.truncate(byte_count)
        self._file.seek(byte_count)

    @property
    def byte_count(self) -> int:
        """All bytes so far."""
        return self._file.tell()

    def append(self, data: bytes) -> None:
        """Puts bytes at the end."""
        self._file.write(data)

    def sync(self) -> int:
        """Brings everything to the disk; returns the length."""
        self._file.flush()
        os.fsync(self._file.fileno())
        return self._file.tell()

    def close(self) -> None:
        """Closes the file."""
        self._file.close()


def sync_folder(folder: Path) -> None:
    """Brings a folder's names to the disk, where the system can do that."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except PermissionError:  # Windows opens no folders.
        return
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
