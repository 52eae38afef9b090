"""One HTTP call as its handler sees it, and the JSON of its body."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, NoReturn

from starlette.requests import Request

from polarvec_server.edge.record import CallRecord
from polarvec_server.errors import InvalidText, RequestError, TooManyTexts

# A string, or what begins or follows a value. An open string goes to the end, so that nothing is looked at twice.
_PIECES = re.compile(r'"(?:[^"\\]++|\\.)*+"?|[\[{,]', re.DOTALL)


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
    # Most values in the JSON: 16 MiB of `[],` would hold the event loop for ten seconds.
    max_values: int

    def json(self) -> dict[str, Any]:
        """Returns the body's JSON object.

        Raises:
            MalformedBody: It is none, or says a thing twice.
            TooManyTexts: It has more values than `max_values`.
        """
        try:
            text = self.body.decode("utf-8-sig")
            _check_value_count(text, self.max_values)
            value = json.loads(text, object_pairs_hook=_unique, parse_constant=_refuse_constant)
        except RequestError:
            raise
        except (ValueError, RecursionError):
            raise MalformedBody("is not valid JSON") from None
        if not isinstance(value, dict):
            raise MalformedBody("is not a JSON object")
        return value


def check_unicode(texts: Sequence[str], field: str) -> None:
    """Raises InvalidText for half a surrogate pair, which JSON can write and no encoding can carry."""
    try:
        "".join(texts).encode()
    except UnicodeEncodeError:
        for index, text in enumerate(texts):
            if any("\ud800" <= character <= "\udfff" for character in text):
                raise InvalidText(f"{field}[{index}]", "holds half a surrogate pair, which is no text") from None


def _check_value_count(text: str, limit: int) -> None:
    """Refuses before anything is built; a string may count twice. Raises TooManyTexts."""
    # Nearly every body has too few marks even with those inside of its strings.
    if text.count(",") + text.count("[") + text.count("{") <= limit:
        return
    if next(islice(_PIECES.finditer(text), limit, None), None):
        raise TooManyTexts("value", limit + 1, limit, "")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        raise MalformedBody("names a field twice")
    return fields


def _refuse_constant(_: str) -> NoReturn:
    raise MalformedBody("holds NaN or Infinity, which JSON has not")
