"""What the server says and uses while the load runs, sampled at fixed times: its metrics, Triton's, CPU and memory."""

from __future__ import annotations

import time
import urllib.request
from collections.abc import Callable
from typing import Any

import gevent
import psutil
from prometheus_client.parser import text_string_to_metric_families

PERIOD_S = 0.5
_GAUGES = ("polarvec_held_tokens", "polarvec_in_flight_tokens")
_TRITON = ("nv_inference_request_success", "nv_inference_exec_count")


class ServerWatch:
    """Samples of one server."""

    def __init__(self, metrics_url: str, triton_metrics_url: str, server_pid: int) -> None:
        """Samples nothing yet.

        Args:
            metrics_url: The gateway's; empty if there are none.
            triton_metrics_url: Triton's; empty if they cannot be reached.
            server_pid: The supervisor's, for CPU and memory of its processes; 0 if they run elsewhere.
        """
        self._sources = {"gateway": metrics_url, "triton": triton_metrics_url}
        self._server = psutil.Process(server_pid) if server_pid else None
        self._cpu_s: dict[int, float] = {}
        self.rows: list[dict[str, Any]] = []
        self.first: dict[str, float] = {}
        self.last: dict[str, float] = {}
        self.missing = {
            what: why
            for what, why, is_there in (
                ("queue depth and batch size", "no --metrics-url was given", metrics_url),
                ("packs a batch", "no --triton-metrics-url was given", triton_metrics_url),
                ("CPU and memory", "the server's processes are not on this machine (--server-pid)", server_pid),
            )
            if not is_there
        }

    def run(self, second_of_run: Callable[[], float]) -> None:
        """Samples for ever; to be killed."""
        while True:
            self.sample(second_of_run())
            gevent.sleep(PERIOD_S - time.monotonic() % PERIOD_S)

    def sample(self, second: float) -> None:
        """Takes one row."""
        row: dict[str, Any] = {"t": round(second, 2)}
        counters: dict[str, float] = {}
        # First what is divided by time: the metrics may take a busy server a while.
        if self._server is not None:
            row["cpu_s"], row["rss_bytes"] = self._usage(self._server)
            machine = psutil.cpu_times()
            row["machine_cpu_s"] = round(sum(machine) - machine.idle - machine.iowait - machine.guest, 2)
        for name, url in self._sources.items():
            if url:
                try:
                    counters |= _read(url)
                except OSError as error:
                    self.missing[f"some metrics of the {name}"] = f"they could not be read: {type(error).__name__}"
        row |= {name: counters[name] for name in _GAUGES if name in counters}
        row |= {name: value for name, value in counters.items() if "_encoded_" in name or name in _TRITON}
        self.first = self.first or counters
        self.last = counters or self.last
        self.rows.append(row)

    def _usage(self, server: psutil.Process) -> tuple[dict[str, float], dict[str, int]]:
        """CPU seconds and resident bytes by the part of the server."""
        cpu_s: dict[str, float] = {}
        rss: dict[str, int] = {}
        try:
            processes = [server, *server.children(recursive=True)]
        except psutil.NoSuchProcess:
            return cpu_s, rss
        for process in processes:
            try:
                part = _part(process, server)
                times, memory = process.cpu_times(), process.memory_info()
            except psutil.NoSuchProcess:
                continue
            cpu_s[part] = round(cpu_s.get(part, 0.0) + times.user + times.system, 2)
            rss[part] = rss.get(part, 0) + memory.rss
        return cpu_s, rss

    def counters(self) -> dict[str, float]:
        """By how much each of the gateway's own counters grew."""
        grown = {name: value - self.first.get(name, 0.0) for name, value in self.last.items()}
        ours = {name: value for name, value in grown.items() if name.startswith("polarvec_") and "_total" in name}
        return {name: value for name, value in ours.items() if value}


def _part(process: psutil.Process, server: psutil.Process) -> str:
    if process == server:
        return "supervisor"
    words = " ".join(process.cmdline()[:4])
    if "triton_python_backend_stub" in words:
        return "engine"
    if "tritonserver" in words:
        return "tritonserver"
    return "gateway"


def _read(url: str) -> dict[str, float]:
    """Counters and gauges, summed over labels; calls also by code."""
    with urllib.request.urlopen(url, timeout=5) as answer:
        text = answer.read().decode()
    values: dict[str, float] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if family.type in ("counter", "gauge"):
                # The parser gives every counter the ending that Prometheus' own have; Triton's have none.
                name = sample.name.removesuffix("_total") if sample.name.startswith("nv_") else sample.name
                values[name] = values.get(name, 0.0) + sample.value
                # Calls by code, and texts that were not computed by why.
                if label := sample.labels.get("code") or sample.labels.get("source"):
                    values[f"{name} {label}"] = values.get(f"{name} {label}", 0.0) + sample.value
    return values
