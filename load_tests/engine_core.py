"""Gives the engine a core of its own: what the server takes from the engine's rate where it takes none of its core."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Collection

import psutil


def split_cores() -> tuple[int, set[int]]:
    """The core of the engine, and those of all others: gateway, tritonserver and callers."""
    engine, *others = sorted(os.sched_getaffinity(0))
    if not others:
        sys.exit("the engine can have no core of its own where there is only one")
    return engine, set(others)


def leave_engine_alone(server_pid: int, cores: Collection[int]) -> None:
    """Moves every process of a server to other cores, but for the Python backend, which has to be born on its own.

    OpenVINO keeps to the cores that were allowed when it loaded, so the whole server starts on the engine's core.

    Args:
        server_pid: Of `polarvec-server serve`.
        cores: Where they go.
    """
    supervisor = psutil.Process(server_pid)
    for process in [supervisor, *supervisor.children(recursive=True)]:
        if "triton_python_backend_stub" in process.cmdline()[0]:
            continue
        for thread in process.threads():
            with contextlib.suppress(ProcessLookupError):
                os.sched_setaffinity(thread.id, cores)
