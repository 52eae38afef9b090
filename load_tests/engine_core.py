"""Gives the engine a core of its own: what the server takes from the engine's rate where it takes none of its core."""

from __future__ import annotations

import contextlib
import os
import sys

import psutil


def split_cores() -> tuple[int, set[int]]:
    """The core of the engine, and those of all others: gateway, tritonserver and callers."""
    engine, *others = sorted(os.sched_getaffinity(0))
    if not others:
        sys.exit("the engine can have no core of its own where there is only one")
    return engine, set(others)


def move_engine(server_pid: int, core: int) -> None:
    """Moves every thread of the server's Python backend to a core; threads that these start follow.

    Args:
        server_pid: Of `polarvec-server serve`.
        core: Its number.
    """
    stubs = [child for child in psutil.Process(server_pid).children(recursive=True) if _is_stub(child)]
    if not stubs:
        sys.exit("the server has no process of an engine")
    for stub in stubs:
        for thread in stub.threads():
            with contextlib.suppress(ProcessLookupError):
                os.sched_setaffinity(thread.id, {core})


def _is_stub(process: psutil.Process) -> bool:
    return "triton_python_backend_stub" in " ".join(process.cmdline()[:1])
