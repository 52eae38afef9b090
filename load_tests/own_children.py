"""Leaves no process behind: what this one started ends with it, however it ends."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from typing import NoReturn

import psutil

_GRACE_S = 20


@contextlib.contextmanager
def own_children() -> Iterator[None]:
    """Ends at its end every process that this one started and that is still there, first gently.

    SIGTERM becomes an exception meanwhile, as Ctrl-C is one, so that every server's own end is run before.
    """
    before = signal.signal(signal.SIGTERM, _leave)
    try:
        yield
    finally:
        # A second Ctrl-C must not stop the cleaning.
        interrupt = signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            _end()
        finally:
            signal.signal(signal.SIGINT, interrupt)
            signal.signal(signal.SIGTERM, before)


def _end() -> None:
    # Read first: what loses its parent is nobody's child any more.
    tree = psutil.Process().children(recursive=True)
    for process in psutil.Process().children():
        with contextlib.suppress(psutil.NoSuchProcess):
            process.send_signal(signal.SIGINT)
    _, alive = psutil.wait_procs(tree, timeout=_GRACE_S)
    for process in alive:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()


def _leave(number: int, frame: object) -> NoReturn:
    raise KeyboardInterrupt
