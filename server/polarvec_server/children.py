"""A child process of the supervisor: its own process group, its output line by line, gone when its parent is."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence

from polarvec_server import launch

# A longer line is cut in the log; readline() would fail on it.
_LONGEST_LINE_BYTES = 1 << 20


def process_start_time(pid: int) -> int | None:
    """Returns when a process started, in clock ticks since boot; None if there is none. Pids come back, these don't."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as stat:
            return int(stat.read().rsplit(b")", 1)[1].split()[19])
    except (OSError, IndexError, ValueError):
        return None


class Child:
    """One child process."""

    def __init__(self, argv: Sequence[str], environment: Mapping[str, str], on_line: Callable[[str], None]) -> None:
        """Keeps what it works with.

        Args:
            argv: The command line.
            environment: The child's whole environment.
            on_line: Told every line that the child writes.
        """
        self._argv, self._environment, self._on_line = list(argv), dict(environment), on_line
        self._process: asyncio.subprocess.Process | None = None
        self._reader: asyncio.Task[None] | None = None
        self._exited = asyncio.Event()
        self._group_killed = False

    @property
    def pid(self) -> int:
        """The process id; 0 before the start."""
        return self._process.pid if self._process else 0

    @property
    def ended(self) -> bool:
        """Whether it was started and has ended."""
        return self._exited.is_set()

    async def start(self, pass_fds: Sequence[int] = ()) -> None:
        """Starts the process."""
        launcher = [sys.executable, "-I", "-S", launch.__file__, str(os.getpid())]
        self._process = await asyncio.create_subprocess_exec(
            *launcher,
            *self._argv,
            env=self._environment,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            # A Ctrl-C on the terminal reaches the supervisor only, which then stops things in order.
            start_new_session=True,
            pass_fds=pass_fds,
            limit=_LONGEST_LINE_BYTES,
        )
        self._reader = asyncio.create_task(self._read())
        self._watch_exit(self._process.pid)

    def _watch_exit(self, pid: int) -> None:
        """Learns of the end at once: asyncio's own wait() also waits for the last grandchild to close the output."""
        loop = asyncio.get_running_loop()
        try:
            pidfd = os.pidfd_open(pid)
        except ProcessLookupError:
            self._exited.set()
            return

        def on_exit() -> None:
            loop.remove_reader(pidfd)
            os.close(pidfd)
            self._exited.set()

        loop.add_reader(pidfd, on_exit)

    async def _read(self) -> None:
        assert self._process is not None and self._process.stdout is not None  # noqa: S101
        while True:
            try:
                line = await self._process.stdout.readline()
            except ValueError:
                continue
            if not line:
                return
            # A log that cannot be written must not keep the child from being read: it would block on a full pipe.
            with contextlib.suppress(Exception):
                self._on_line(line.decode(errors="replace").rstrip())

    async def wait(self) -> int:
        """Waits for the end, kills what the process left in its group, and returns the exit status."""
        assert self._process is not None and self._reader is not None  # noqa: S101
        await self._exited.wait()
        if not self._group_killed:
            # Once: the number may be somebody else's later.
            self._group_killed = True
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGKILL)
        status = await self._process.wait()
        # asyncio.wait, because several may wait for the end, and one that is cancelled must not end the reading.
        await asyncio.wait({self._reader})
        return status

    def signal(self, number: int) -> None:
        """Sends a signal to the process; none if it is gone."""
        if self._process is not None and not self._exited.is_set():
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(number)

    async def stop(self, grace_s: float) -> int:
        """Ends the process: SIGTERM, then SIGKILL after `grace_s` seconds."""
        if self._process is None:
            return 0
        self.signal(signal.SIGTERM)
        # A stopped process (SIGSTOP) would not see SIGTERM.
        self.signal(signal.SIGCONT)
        try:
            async with asyncio.timeout(grace_s):
                return await self.wait()
        except TimeoutError:
            self.signal(signal.SIGKILL)
            return await self.wait()
