"""What an unfinished bulk job knows about itself, in one small file that is always whole."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from polarvec._errors import InvalidRequest
from polarvec.bulk._append_file import sync_folder

_VERSION = 1


@dataclass(frozen=True, slots=True)
class Journal:
    """The state of a job after its last commit: everything before `row_count` is on the disk, exactly once."""

    job: Mapping[str, Any]
    """The spec's record."""
    model: str
    fingerprint: str
    row_count: int = 0
    """Rows of the input that are done with."""
    error_count: int = 0
    """Bad rows among them."""
    token_count: int = 0
    lengths: Mapping[str, int] = field(default_factory=dict)
    """Bytes of each spool that count."""
    publish: Mapping[str, str] | None = None
    """Set when all is computed: which file of the job's folder goes where."""
    version: int = _VERSION

    def advanced(self, **changes: Any) -> Journal:
        """A later state of the same job."""
        return replace(self, **changes)

    def save(self, path: Path) -> None:
        """Replaces the file as a whole."""
        fresh = path.with_suffix(".new")
        with fresh.open("w", encoding="utf-8") as file:
            json.dump(asdict(self), file, ensure_ascii=False, indent=1)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(path)
        sync_folder(path.parent)

    @classmethod
    def load(cls, path: Path) -> Journal | None:
        """The journal in a file; None if there is no file.

        Raises:
            InvalidRequest: It is none that this version can read.
        """
        try:
            journal = cls(**json.loads(path.read_text(encoding="utf-8")))
        except FileNotFoundError:
            return None
        except (ValueError, TypeError):
            journal = None
        if journal is None or journal.version != _VERSION:
            raise InvalidRequest(f"{path} is no journal that this version can read; begin anew with --restart.")
        return journal

    def check_continues(self, other: Journal) -> None:
        """Refuses to go on with a job that would mix two kinds of rows.

        Args:
            other: The journal that a new job would start with.

        Raises:
            InvalidRequest: Input, options or model are not those of this journal.
        """
        differences = list(_differences(self.job, other.job))
        if self.fingerprint != other.fingerprint:
            differences.append(f"model: {self.model} ({self.fingerprint}), now {other.model} ({other.fingerprint})")
        if differences:
            raise InvalidRequest(
                f"{self.row_count} rows are done already, but not of this job: {'; '.join(differences)}. "
                "Give what was given then, or begin anew with --restart."
            )


def _differences(then: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    for name in {**then, **now}:
        if then.get(name) == now.get(name):
            continue
        yield "the input has changed" if name == "input" else f"{name}: {then.get(name)!r}, now {now.get(name)!r}"
