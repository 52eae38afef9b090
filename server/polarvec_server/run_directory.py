"""The private directory of one running server, and what servers that were killed have left behind."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from polarvec_server.children import process_start_time

SHARED_MEMORY = Path("/dev/shm")  # noqa: S108
_OWNER = re.compile(r"polarvec-(\d+)-(\d+)-")


def shared_memory_prefix() -> str:
    """Returns a prefix that says which supervisor a region belongs to."""
    return f"polarvec-{os.getpid()}-{process_start_time(os.getpid())}-"


def remove_orphans(directory: Path) -> None:
    """Removes what supervisors that were killed left in a directory: entries of ours whose supervisor is gone."""
    for entry in directory.glob("polarvec-*"):
        match = _OWNER.match(entry.name)
        if match is None or process_start_time(int(match[1])) == int(match[2]):
            continue
        with contextlib.suppress(OSError):
            if entry.stat().st_uid == os.getuid():
                shutil.rmtree(entry) if entry.is_dir() else entry.unlink()


@contextlib.contextmanager
def run_directory() -> Iterator[Path]:
    """Makes the directory, cleans up after servers that were killed, and removes it all in the end.

    prometheus_client decides when it is imported whether its metrics are shared between processes, so this must be
    entered before anything imports `telemetry`.
    """
    temporary = Path(tempfile.gettempdir())
    remove_orphans(SHARED_MEMORY)
    remove_orphans(temporary)
    # Short, because a socket's path has at most 107 bytes; private, because whoever reaches the socket owns Triton.
    directory = Path(tempfile.mkdtemp(prefix=shared_memory_prefix(), dir=temporary))
    metrics = directory / "metrics"
    metrics.mkdir()
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(metrics)
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)
