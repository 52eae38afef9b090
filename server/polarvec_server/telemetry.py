"""Metrics: no text of a caller and no key is ever a label."""

from __future__ import annotations

import os
from bisect import bisect_left
from collections import Counter as TallyOf
from collections.abc import Iterable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest, multiprocess, values
from prometheus_client.metrics_core import Metric
from prometheus_client.values import MultiProcessValue, MutexValue

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


class Metrics:
    """The metrics of one process; several processes of a server add up through PROMETHEUS_MULTIPROC_DIR."""

    def __init__(self) -> None:
        if values.ValueClass is not MutexValue:
            # Otherwise every count asks the kernel for the process id; nothing forks here.
            process_id = os.getpid()
            values.ValueClass = MultiProcessValue(lambda: process_id)  # type: ignore[no-untyped-call]
        # The files of the multiprocess mode are the registry; this one only keeps the objects apart.
        registry = CollectorRegistry()
        self.requests = Counter(
            "polarvec_requests", "Calls by method and status code", ["method", "code"], registry=registry
        )
        self.request_seconds = Histogram(
            "polarvec_request_duration_seconds", "Whole calls", ["method"], buckets=_SECONDS, registry=registry
        )
        self.stage_seconds = Histogram(
            "polarvec_stage_duration_seconds",
            "Stages of a call: tokenize, queue, inference",
            ["stage"],
            buckets=_SECONDS,
            registry=registry,
        )
        self.texts = Counter("polarvec_texts", "Texts embedded", ["model"], registry=registry)
        self.tokens = Counter("polarvec_tokens", "Tokens embedded", ["model"], registry=registry)
        self.truncated = Counter(
            "polarvec_truncated_texts", "Texts cut at the model's limit", ["model"], registry=registry
        )
        # Counted while calls and streams run on, half a second behind; the counts of a call come at its end.
        self.encoded_packs = Counter(
            "polarvec_encoded_packs", "Packs that the encoder has answered", ["model"], registry=registry
        )
        self.encoded_texts = Counter("polarvec_encoded_texts", "Texts in them", ["model"], registry=registry)
        self.encoded_tokens = Counter("polarvec_encoded_tokens", "Tokens in them", ["model"], registry=registry)
        self.repeated_texts = Counter(
            "polarvec_repeated_texts",
            "Texts that were not computed, by source: call, in_flight, cache",
            ["model", "source"],
            registry=registry,
        )
        self.cache_misses = Counter(
            "polarvec_cache_misses", "Texts that the cache did not know", ["model"], registry=registry
        )
        self.cache_evictions = Counter(
            "polarvec_cache_evictions", "Vectors that made room for others", ["model"], registry=registry
        )
        self.cache_entries = Gauge(
            "polarvec_cache_entries", "Vectors in the cache", ["model"], multiprocess_mode="livesum", registry=registry
        )
        self.cache_bytes = Gauge(
            "polarvec_cache_bytes",
            "Bytes of the cache, keys and overhead included",
            ["model"],
            multiprocess_mode="livesum",
            registry=registry,
        )
        self.held_tokens = Gauge(
            "polarvec_held_tokens",
            "Tokens of calls that are in",
            ["model"],
            multiprocess_mode="livesum",
            registry=registry,
        )
        self.in_flight_tokens = Gauge(
            "polarvec_in_flight_tokens",
            "Tokens on their way in Triton",
            ["model"],
            multiprocess_mode="livesum",
            registry=registry,
        )
        self.encoder_up = Gauge(
            "polarvec_encoder_up",
            "1 while canary inferences succeed",
            ["model"],
            multiprocess_mode="livemin",
            registry=registry,
        )
        self.canary_seconds = Histogram(
            "polarvec_canary_duration_seconds", "Canary inferences", ["model"], buckets=_SECONDS, registry=registry
        )
        self.loop_lag_seconds = Gauge(
            "polarvec_event_loop_lag_seconds", "Delay of the event loop", multiprocess_mode="livemax", registry=registry
        )
        self.encoder_restarts = Counter(
            "polarvec_encoder_restarts",
            "Restarts of tritonserver by cause: exit, stub, hang, error, wrong vector",
            ["cause"],
            registry=registry,
        )
        self.worker_restarts = Counter("polarvec_worker_restarts", "Restarts of gateway workers", registry=registry)


class Tally:
    """Counts in plain numbers, and hands them to the metrics when it is told to.

    A call has a dozen counts; in the memory-mapped files of the multiprocess mode they take longer than tokenizing a
    question does.
    """

    def __init__(self) -> None:
        self._counts: dict[Counter, float] = {}
        self._observed: dict[Histogram, list[float]] = {}

    def count(self, counter: Counter, amount: float = 1) -> None:
        """Counts on; the counter has its labels."""
        self._counts[counter] = self._counts.get(counter, 0) + amount

    def observe(self, histogram: Histogram, value: float) -> None:
        """Notes a value; the histogram has its labels."""
        self._observed.setdefault(histogram, []).append(value)

    def flush(self) -> None:
        """Hands on what has come together."""
        counts, self._counts = self._counts, {}
        for counter, amount in counts.items():
            counter.inc(amount)
        observed, self._observed = self._observed, {}
        for histogram, seen in observed.items():
            # The library has no public way to observe many at once; a test holds that this is the same.
            places = TallyOf(bisect_left(histogram._upper_bounds, value) for value in seen)
            for place, count in places.items():
                histogram._buckets[place].inc(count)
            histogram._sum.inc(sum(seen))


def render_metrics() -> bytes:
    """Returns the metrics of all processes of this server in Prometheus' text format."""
    return generate_latest(_all_processes())


def read_metrics() -> Iterable[Metric]:
    """Returns the metrics of all processes of this server."""
    return _all_processes().collect()


def _all_processes() -> CollectorRegistry:
    registry = CollectorRegistry()
    multiprocess.MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    return registry
