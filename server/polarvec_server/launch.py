"""Becomes another program that ends when its parent does: `python launch.py PARENT_PID PROGRAM ARGUMENT...`.

A program of its own instead of a preexec_fn, which is unsafe in a process with threads.
"""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def main() -> None:
    """Asks the kernel for SIGTERM at the parent's end, then becomes the program."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() == int(sys.argv[1]):
        os.execv(sys.argv[2], sys.argv[2:])  # noqa: S606  the command line is the supervisor's own


if __name__ == "__main__":
    main()
