"""What a server costs while it is loaded: CPU seconds and memory of each of its processes, and its own counters."""

from __future__ import annotations

import os
import re
import threading
import time
import urllib.request
from collections import Counter
from types import TracebackType
from typing import Self

import psutil

_INTERVAL_S = 0.05
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_SAMPLE = re.compile(r"^(\w+)(?:\{(.*)\})? (\S+)$", re.MULTILINE)


class ServerTree:
    """The processes of one server by what they do: worker, triton, encoder (its Python stub), supervisor."""

    def __init__(self, pid: int) -> None:
        """Finds them; a process that starts later is not counted.

        Args:
            pid: Of `polarvec-server serve`.
        """
        root = psutil.Process(pid)
        self._roles = {process: _role(process) for process in root.children(recursive=True)}
        self._roles[root] = "supervisor"

    def cpu_s(self) -> Counter[str]:
        """CPU seconds of each role so far, in steps of 10 ms a process."""
        seconds: Counter[str] = Counter()
        for process, role in self._roles.items():
            times = process.cpu_times()
            seconds[role] += times.user + times.system
        return seconds

    def worker_cpu_s(self) -> list[float]:
        """CPU seconds of each gateway worker so far."""
        workers = [process for process, role in self._roles.items() if role == "worker"]
        return [sum(worker.cpu_times()[:2]) for worker in workers]

    def rss_bytes(self) -> Counter[str]:
        """Resident memory of each role now; pages that processes share count once for each."""
        memory: Counter[str] = Counter()
        for process, role in self._roles.items():
            with open(f"/proc/{process.pid}/statm", encoding="ascii") as counts:
                memory[role] += int(counts.read().split()[1]) * _PAGE_BYTES
        return memory


def _role(process: psutil.Process) -> str:
    line = " ".join(process.cmdline()[:4])
    if "python_backend_stub" in line:
        return "encoder"
    return "triton" if "tritonserver" in line else "worker"


class PeakMemory:
    """The most memory that the server had while this context was open, read 20 times a second."""

    def __init__(self, tree: ServerTree) -> None:
        self._tree = tree
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self.start, self.peak = tree.rss_bytes(), tree.rss_bytes()

    def _watch(self) -> None:
        while not self._ended.wait(_INTERVAL_S):
            self.peak |= self._tree.rss_bytes()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()
        self.peak |= self._tree.rss_bytes()


class Counters:
    """The server's /metrics and Triton's, as sums over their labels."""

    def __init__(self, http_port: int, triton_port: int) -> None:
        self._addresses = [f"http://127.0.0.1:{port}/metrics" for port in (http_port, triton_port)]

    def read(self) -> Counter[str]:
        """Returns every sample added up over models; `refused` are the calls that ended with RESOURCE_EXHAUSTED."""
        # Past any proxy that the environment names.
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        sums: Counter[str] = Counter()
        for address in self._addresses:
            with opener.open(address, timeout=10) as answer:
                for name, labels, value in _SAMPLE.findall(answer.read().decode()):
                    if "quantile" in labels:
                        continue
                    sums[name] += float(value)
                    if name == "polarvec_requests_total" and "RESOURCE_EXHAUSTED" in labels:
                        sums["refused"] += float(value)
        return sums

    def settled(self) -> Counter[str]:
        """Reads them after the gateway's half second, so that what has just ended is counted."""
        time.sleep(0.6)
        return self.read()
