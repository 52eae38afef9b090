"""The part of every call that all doors share: its id, its record, its log line, its metrics."""

from __future__ import annotations

import random
import re
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any

import structlog
from prometheus_client import Counter, Histogram

from polarvec_server.edge.record import CallRecord, current_record
from polarvec_server.errors import InternalError, RequestError
from polarvec_server.telemetry import Metrics, Tally

Metric = Counter | Histogram
_log = structlog.get_logger("polarvec.calls")
_REQUEST_ID = re.compile(r"[A-Za-z0-9_.:-]{1,64}")
# https://www.w3.org/TR/trace-context/#traceparent-header
_TRACEPARENT = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}(-.*)?")


class Accounting:
    """Counts and logs the calls of one worker; draining waits for those in progress."""

    def __init__(self, metrics: Metrics) -> None:
        self.metrics = metrics
        self.calls_in_progress = 0
        self.tally = Tally()
        # Bound once: the proxy that get_logger returns takes longer to find its level than a refused line does.
        self.log = _log.bind()
        self._bound: dict[tuple[Metric, tuple[str, ...]], Any] = {}

    def open(self, method: str, headers: Mapping[str, str]) -> OpenCall:
        """Returns the frame of a call.

        Args:
            method: Name in logs and metrics; one of few, never made of what a caller sent.
            headers: The call's metadata or headers, with keys in lower case.
        """
        given, parent = headers.get("x-request-id"), headers.get("traceparent")
        traceparent = _TRACEPARENT.fullmatch(parent) if parent else None
        record = CallRecord(
            given if given and _REQUEST_ID.fullmatch(given) else f"{random.getrandbits(64):016x}",
            trace_id=traceparent[1] if traceparent else "",
        )
        return OpenCall(self, method, record)

    def bound(self, metric: Metric, *labels: str) -> Any:
        """Returns a metric with its labels; to look it up in the metric takes a lock and ten times as long."""
        key = (metric, labels)
        found = self._bound.get(key)
        if found is None:
            found = self._bound[key] = metric.labels(*labels)
        return found


class OpenCall:
    """One call while it is answered; a context manager, inside of which `current_record` is the call's."""

    def __init__(self, accounting: Accounting, method: str, record: CallRecord) -> None:
        self._accounting, self._method, self.record = accounting, method, record

    def __enter__(self) -> OpenCall:
        self._started = time.monotonic()
        self._accounting.calls_in_progress += 1
        self._token = current_record.set(self.record)
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._accounting.calls_in_progress -= 1

    def succeeded(self) -> None:
        """Ends a call that was answered."""
        self._finish("OK")

    def cancelled(self) -> None:
        """Ends a call whose caller went away."""
        self._finish("CANCELLED")

    def failed(self, error: Exception) -> RequestError:
        """Ends a call that is refused, and returns what its caller is told; an unknown error stands in the log only."""
        if not isinstance(error, RequestError):
            _log.error("a call failed", method=self._method, request_id=self.record.request_id, exc_info=error)
            error = InternalError()
        self._finish(error.code.name, error.reason)
        return error

    def timings(self) -> list[tuple[str, str]]:
        """Returns the stages' times as headers, in milliseconds; none for a call without inference."""
        if not self.record.timed:
            return []
        timings = self.record.timings
        return [
            ("x-queue-ms", f"{timings.queue_ms:.3f}"),
            ("x-tokenize-ms", f"{timings.tokenize_ms:.3f}"),
            ("x-inference-ms", f"{timings.inference_ms:.3f}"),
        ]

    def _finish(self, code: str, reason: str = "") -> None:
        seconds = time.monotonic() - self._started
        record = self.record
        self._count(code, seconds)
        write = self._accounting.log.debug if code == "OK" else self._accounting.log.info
        write(
            "call",
            method=self._method,
            code=code,
            reason=reason,
            request_id=record.request_id,
            trace_id=record.trace_id,
            key=record.key.name,
            model=record.model,
            texts=record.text_count,
            tokens=record.token_count,
            ms=round(seconds * 1e3, 2),
        )

    def _count(self, code: str, seconds: float) -> None:
        record, metrics = self.record, self._accounting.metrics
        tally, bound = self._accounting.tally, self._accounting.bound
        tally.count(bound(metrics.requests, self._method, code))
        tally.observe(bound(metrics.request_seconds, self._method), seconds)
        if record.timed and code == "OK":
            tally.observe(bound(metrics.stage_seconds, "tokenize"), record.timings.tokenize_ms / 1e3)
            tally.observe(bound(metrics.stage_seconds, "queue"), record.timings.queue_ms / 1e3)
            tally.observe(bound(metrics.stage_seconds, "inference"), record.timings.inference_ms / 1e3)
        if record.text_count and record.embeds:
            tally.count(bound(metrics.texts, record.model), record.text_count)
            tally.count(bound(metrics.tokens, record.model), record.token_count)
            tally.count(bound(metrics.truncated, record.model), record.truncated_count)
