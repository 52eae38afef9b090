"""A lock for people who measure on the same machine."""

from __future__ import annotations

import fcntl
import time
from io import TextIOWrapper
from pathlib import Path


class FileLock:
    """Held around all that is measured; given away only after some minutes, because getting it back may take more.

    A context manager that may be entered again and again.
    """

    def __init__(self, file: Path | None, hold_s: float = 240.0) -> None:
        """Opens nothing yet.

        Args:
            file: What is locked; None locks nothing.
            hold_s: Kept so long, however often it is entered and left.
        """
        self._file, self._hold_s = file, hold_s
        self._opened: TextIOWrapper | None = None
        self._since = 0.0

    def __enter__(self) -> None:
        if self._file and self._opened is None:
            self._opened = self._file.open("w")
            fcntl.flock(self._opened, fcntl.LOCK_EX)
            self._since = time.monotonic()

    def __exit__(self, *_: object) -> None:
        if time.monotonic() - self._since > self._hold_s:
            self.release()

    def release(self) -> None:
        """Gives it away now."""
        if self._opened:
            self._opened.close()
            self._opened = None
