"""What the playground's live view counts with: the server's own metrics added up over its workers, and Triton's."""

from __future__ import annotations

import asyncio
import time
import urllib.request
from collections import defaultdict
from collections.abc import Iterable
from typing import Any

from prometheus_client.metrics_core import Metric

from polarvec_server.telemetry import read_metrics

# Any number of open pages costs as much as one that asks this often.
_FRESH_S = 0.5
_TRITON_TIMEOUT_S = 1.0
_COUNTERS = {
    "polarvec_encoded_packs_total": "packs",
    "polarvec_encoded_texts_total": "texts",
    "polarvec_encoded_tokens_total": "tokens",
    "polarvec_held_tokens": "held_tokens",
    "polarvec_in_flight_tokens": "in_flight_tokens",
}
_NO_FAILURES = {"OK", "CANCELLED"}


class LoadView:
    """The load of the whole server as counters that only grow; whoever looks takes differences of two readings."""

    def __init__(self, triton_metrics_port: int) -> None:
        """Keeps what it works with.

        Args:
            triton_metrics_port: Of Triton's metrics on loopback; 0 if they are elsewhere.
        """
        self._triton_metrics_port = triton_metrics_port
        self._lock = asyncio.Lock()
        self._last: dict[str, Any] = {}
        self._read_at = -_FRESH_S

    async def read(self) -> dict[str, Any]:
        """Returns a reading, at most half a second old.

        Returns:
            `at_s` on a clock that all workers share; counts of calls (`requests`, `failed`); of what the encoder has
            computed (`packs`, `texts`, `tokens`); `latency` as bounds and cumulative counts of the calls without
            streams; `held_tokens` and `in_flight_tokens` right now; Triton's `batches` and `batched_packs`, canaries
            among them, or None where its metrics cannot be read; `encoder_up`.
        """
        async with self._lock:
            if time.monotonic() - self._read_at >= _FRESH_S:
                self._last = await asyncio.to_thread(self._read)
                self._read_at = time.monotonic()
        return self._last

    def _read(self) -> dict[str, Any]:
        reading = add_up(read_metrics())
        batches = self._read_triton()
        return {"at_s": time.monotonic(), **reading, "batches": batches[0], "batched_packs": batches[1]}

    def _read_triton(self) -> tuple[float | None, float | None]:
        """Returns how many batches Triton has computed, and how many packs they held."""
        if not self._triton_metrics_port:
            return None, None
        # Past any proxy that the environment names.
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            address = f"http://127.0.0.1:{self._triton_metrics_port}/metrics"
            with opener.open(address, timeout=_TRITON_TIMEOUT_S) as answer:
                lines = answer.read().decode().splitlines()
            counts = [
                sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(f"{name}{{"))
                for name in ("nv_inference_exec_count", "nv_inference_count")
            ]
        except (OSError, ValueError):
            return None, None
        return counts[0], counts[1]


def add_up(families: Iterable[Metric]) -> dict[str, Any]:
    """Adds the samples up over models and methods; what a GET asks (such as this view) counts as no load."""
    sums: dict[str, float] = defaultdict(float)
    buckets: dict[float, float] = defaultdict(float)
    down = False
    for sample in (sample for family in families for sample in family.samples):
        method = sample.labels.get("method", "")
        if sample.name in _COUNTERS:
            sums[_COUNTERS[sample.name]] += sample.value
        elif sample.name == "polarvec_encoder_up":
            down = down or not sample.value
        elif method.startswith("GET "):
            continue
        elif sample.name == "polarvec_requests_total":
            sums["requests"] += sample.value
            sums["failed"] += sample.value if sample.labels["code"] not in _NO_FAILURES else 0
        # A stream lasts as long as its caller has texts.
        elif sample.name == "polarvec_request_duration_seconds_bucket" and "Stream" not in method:
            buckets[float(sample.labels["le"])] += sample.value
    bounds = sorted(buckets)
    return {
        **{name: sums[name] for name in (*_COUNTERS.values(), "requests", "failed")},
        "latency": {
            "bounds_s": [bound for bound in bounds if bound != float("inf")],
            "counts": [buckets[bound] for bound in bounds] or [0.0],
        },
        "encoder_up": not down,
    }
