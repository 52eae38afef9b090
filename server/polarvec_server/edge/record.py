"""What one call leaves behind for its log line, its metrics and its timings, whichever door it came through."""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass, field

from polarvec_server.edge.auth import ANYONE, ApiKey
from polarvec_server.pipeline.values import Timings, Tokenized


@dataclass(slots=True)
class CallRecord:
    """Filled by a door while it answers; read by `accounting` afterwards. Holds no text."""

    request_id: str
    # Of the caller's traceparent, 32 hexadecimal digits; empty if it sent none.
    trace_id: str = ""
    key: ApiKey = ANYONE
    model: str = ""
    text_count: int = 0
    token_count: int = 0
    truncated_count: int = 0
    timings: Timings = field(default_factory=Timings)
    # Calls without any inference (Tokenize, ListModels) have no timings to tell.
    timed: bool = False
    # Tokenize sees texts that no encoder does.
    embeds: bool = True

    def note(self, tokenized: Tokenized, timings: Timings) -> None:
        """Adds what a call, or one side of it, did."""
        self.text_count += len(tokenized.full_counts)
        self.token_count += int(tokenized.offsets[-1])
        self.truncated_count += len(tokenized.cut_rows)
        self.timings = timings


current_record: ContextVar[CallRecord] = ContextVar("current_record")
