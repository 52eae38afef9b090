"""One HTTP call as its handler sees it, and the JSON of its body."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, NoReturn

from starlette.requests import Request

from polarvec_server.edge.record import CallRecord
from polarvec_server.errors import RequestError


class MalformedBody(RequestError):
    """The body is not the JSON that the path takes."""

    reason = "MALFORMED_MESSAGE"

    def __init__(self, problem: str) -> None:
        super().__init__(f"The body {problem}; send one JSON object.")


@dataclass(frozen=True, slots=True)
class HttpCall:
    """One call as its handler sees it; the body is complete."""

    request: Request
    body: bytes
    # On the clock of time.monotonic.
    deadline: float
    record: CallRecord

    def json(self) -> dict[str, Any]:
        """Returns the body's JSON object. Raises MalformedBody if it is none, or says a thing twice."""
        try:
            value = json.loads(self.body, object_pairs_hook=_unique, parse_constant=_refuse_constant)
        except MalformedBody:
            raise
        except (ValueError, RecursionError):
            raise MalformedBody("is not valid JSON") from None
        if not isinstance(value, dict):
            raise MalformedBody("is not a JSON object")
        return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        raise MalformedBody("names a field twice")
    return fields


def _refuse_constant(_: str) -> NoReturn:
    raise MalformedBody("holds NaN or Infinity, which JSON has not")
