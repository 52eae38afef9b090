"""The folder in which a bulk job is done, beside its output: one process at a time, nothing half done in sight."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from polarvec._errors import InvalidRequest
from polarvec.bulk._append_file import sync_folder
from polarvec.bulk._journal import Journal

try:
    import fcntl
except ModuleNotFoundError:  # Windows, which has no flock; two jobs at once are the user's to avoid there.
    fcntl = None  # type: ignore[assignment]

_JOURNAL = "journal.json"
_LOCK = "lock"


class Workplace:
    """`OUTPUT.partial/`: the spools, the journal, and a lock that a killed process lets go of."""

    def __init__(self, output: Path, *, restart: bool) -> None:
        """Opens the folder, or makes it.

        Args:
            output: The file that the job is to write.
            restart: Forgets an unfinished job, and replaces an output that is there.

        Raises:
            InvalidRequest: Another process is at work here, or the output is there already.
        """
        self.folder = output.with_name(f"{output.name}.partial")
        if output.exists() and not restart and not (self.folder / _JOURNAL).exists():
            raise InvalidRequest(f"{output} is there already; name another file, or replace it with --restart.")
        self.folder.mkdir(exist_ok=True)
        self._lock = self._locked(output)
        if restart:
            self._clear()

    def load(self) -> Journal | None:
        """The journal of an unfinished job, if there is one."""
        return Journal.load(self.folder / _JOURNAL)

    def save(self, journal: Journal) -> None:
        """Puts the journal on the disk."""
        journal.save(self.folder / _JOURNAL)

    def publish(self, files: Mapping[str, str]) -> None:
        """Moves finished files to their places and removes the folder; a run that was killed in here does it again.

        Args:
            files: By name in this folder, the place of each; one that is not here any more has been moved already.
        """
        for name, place in files.items():
            if (self.folder / name).exists():
                _move(self.folder / name, Path(place))
        sync_folder(self.folder.parent)
        self._clear()
        self._lock.close()
        (self.folder / _LOCK).unlink()
        self.folder.rmdir()

    def __enter__(self) -> Self:
        """The workplace itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Lets go of the lock."""
        self._lock.close()

    def _locked(self, output: Path) -> IO[bytes]:
        lock = (self.folder / _LOCK).open("wb")
        try:
            if fcntl is not None:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            lock.close()
            raise InvalidRequest(f"Another process is writing {output}; wait for it or name another file.") from None
        return lock

    def _clear(self) -> None:
        """Removes everything but the lock, the journal last: without it the rest means nothing."""
        for path in sorted(self.folder.iterdir(), key=lambda path: path.name == _JOURNAL):
            if path.name != _LOCK:
                path.unlink()


def _move(source: Path, place: Path) -> None:
    try:
        source.replace(place)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        fresh = place.with_name(f"{place.name}.new")  # Another file system: copy, then rename there.
        shutil.copyfile(source, fresh)
        with fresh.open("rb") as file:
            os.fsync(file.fileno())
        fresh.replace(place)
        source.unlink()
