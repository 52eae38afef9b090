"""Metrics: no text of a caller and no key is ever a label."""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest, multiprocess
from prometheus_client.metrics_core import Metric

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


class Metrics:
    """The metrics of one process; several processes of a server add up through PROMETHEUS_MULTIPROC_DIR."""

    def __init__(self) -> None:
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
