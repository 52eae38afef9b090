"""What goes with every gRPC call of one method call: its time, and the metadata with the caller's trace."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable
from dataclasses import dataclass

from polarvec._errors import InvalidRequest

# https://www.w3.org/TR/trace-context/#traceparent-header
_TRACEPARENT = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")


@dataclass(frozen=True, slots=True)
class CallContext:
    """How long a gRPC call may take, retries included, and what it says beside its message."""

    timeout_s: float
    metadata: tuple[tuple[str, str], ...]


def trace_metadata(traceparent: str | None) -> tuple[tuple[str, str], ...]:
    """The trace that a call belongs to, as metadata.

    Args:
        traceparent: The caller's own, which wins; None asks OpenTelemetry, if the program uses it.

    Raises:
        InvalidRequest: It is not in the form of W3C Trace Context.
    """
    if traceparent is not None:
        if not _TRACEPARENT.fullmatch(traceparent):
            raise InvalidRequest(
                f"traceparent is {traceparent!r}; give one of W3C Trace Context: 00-<32 hex>-<16 hex>-<2 hex>.",
                reason="INVALID_FIELD",
                field="traceparent",
            )
        return (("traceparent", traceparent),)
    # A program that traces has imported the package itself; for any other the import alone would cost 50 ms.
    if "opentelemetry.trace" not in sys.modules:
        return ()
    from opentelemetry import propagate

    carrier: dict[str, str] = {}
    propagate.inject(carrier)
    return tuple(_sendable(carrier.items()))


def _sendable(pairs: Iterable[tuple[str, str]]) -> Iterable[tuple[str, str]]:
    """The pairs that gRPC takes, keys in lower case: one letter beyond printable ASCII would fail the whole call."""
    for key, value in pairs:
        if value.isascii() and value.isprintable():
            yield key.lower(), value
