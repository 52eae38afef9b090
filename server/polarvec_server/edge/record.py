"""What one call leaves behind for its log line, its metrics and its trailing metadata."""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass, field

from polarvec_server.pipeline.values import Timings


@dataclass(slots=True)
class CallRecord:
    """Filled by a door while it answers; read by the interceptor afterwards. Holds no text."""

    request_id: str
    model: str = ""
    text_count: int = 0
    token_count: int = 0
    truncated_count: int = 0
    timings: Timings = field(default_factory=Timings)
    # Calls without any inference (Tokenize, ListModels) have no timings to tell.
    timed: bool = False


current_record: ContextVar[CallRecord] = ContextVar("current_record")
