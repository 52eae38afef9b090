"""The orchestrator's half of the protocol: one script in a process tree of its own, with its CPU time and memory."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import tempfile
from pathlib import Path

import psutil

RUNNERS = Path(__file__).with_name("runners")
# Nothing may be downloaded while a peer runs, and all see the same number of threads.
_OFFLINE = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "DO_NOT_TRACK": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}


class PeerError(Exception):
    """A peer that does not run here; the text says why."""


class ScriptProcess:
    """Runs one script of runners/ that answers JSON lines; every method may raise a `PeerError`."""

    def __init__(self, python: Path, script: str, threads: int, log: Path) -> None:
        """Starts the script.

        Args:
            python: The interpreter of the peer's environment.
            script: Name in runners/.
            threads: What OpenMP, and with it most engines, may use.
            log: Gets everything that the peer prints.
        """
        count = str(threads)
        environment = {**os.environ, **_OFFLINE, "OMP_NUM_THREADS": count, "MKL_NUM_THREADS": count}
        environment.pop("PYTHONPATH", None)
        self._log = log
        self.folder = Path(tempfile.mkdtemp(prefix="polarvec-peer-"))
        self.counts_itself = True
        """Whether the script's own process counts, beside its children."""
        with log.open("wb") as written:
            self._process = subprocess.Popen(
                [str(python), str(RUNNERS / script)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=written,
                env=environment,
                text=True,
            )

    def ask(self, job: dict) -> dict:
        """Sends one job and waits for its answer."""
        assert self._process.stdin is not None and self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps(job) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            raise PeerError(f"it ended: {self._last_line()}")
        answer = json.loads(line)
        if "error" in answer:
            raise PeerError(answer["error"])
        return answer

    def load(self, job: dict) -> dict:
        """Loads a model and returns what the script says about it, with the `seconds` that it took."""
        answer = self.ask({"do": "load", **job})
        return {**answer["said"], "seconds": answer["seconds"]}

    def cpu_seconds(self) -> float:
        """User and system time of the process tree until now."""
        return sum(_cpu_seconds(process) for process in self._counted())

    def peak_bytes(self) -> int:
        """Sum of the largest resident size of each process in the tree."""
        return sum(_peak_bytes(process.pid) for process in self._counted())

    def stop(self) -> None:
        """Ends the tree."""
        tree = self._tree()
        with contextlib.suppress(BrokenPipeError, OSError):
            assert self._process.stdin is not None
            self._process.stdin.write('{"do": "stop"}\n')
            self._process.stdin.close()
        _, alive = psutil.wait_procs(tree, timeout=30)
        for process in alive:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()
        for file in self.folder.iterdir():
            file.unlink()
        self.folder.rmdir()

    def _counted(self) -> list[psutil.Process]:
        tree = self._tree()
        return tree if self.counts_itself else tree[1:]

    def _tree(self) -> list[psutil.Process]:
        try:
            root = psutil.Process(self._process.pid)
            return [root, *root.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []

    def _last_line(self) -> str:
        lines = [line for line in self._log.read_text(errors="replace").splitlines() if line.strip()]
        return lines[-1][:300] if lines else "nothing was printed"


def _cpu_seconds(process: psutil.Process) -> float:
    with contextlib.suppress(psutil.NoSuchProcess):
        times = process.cpu_times()
        return times.user + times.system
    return 0.0


def _peak_bytes(pid: int) -> int:
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return 0
