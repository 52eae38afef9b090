"""One row of a bulk job: as it was read, and as it came out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from polarvec._errors import PolarvecError
from polarvec._types import StreamItem


@dataclass(frozen=True, slots=True)
class Problem:
    """Why a row has no vector; the reasons are those of the API, and INVALID_ROW for what never reached it."""

    reason: str
    message: str

    @classmethod
    def from_error(cls, error: PolarvecError, number: int) -> Problem:
        """What the server or the SDK said of a text, with the row's number in place of the text's."""
        message = error.message.replace(error.field, f"row {number}") if error.field else error.message
        return cls(error.reason or "INVALID_ROW", message)


@dataclass(frozen=True, slots=True)
class Row:
    """One row of the input."""

    number: int
    """Its place in the input, from 0; a CSV file's header is not counted."""
    text: str = ""
    kept: tuple[Any, ...] = ()
    """The values of the columns that go along, in the order of the job; empty where the row could not be read."""
    problem: Problem | None = None
    """Set where there is nothing to embed."""


@dataclass(frozen=True, slots=True)
class Settled:
    """A row that is done with: a vector, or the reason why there is none."""

    row: Row
    item: StreamItem | None
    problem: Problem | None = None


def bad_row(number: int, message: str, *, reason: str = "INVALID_ROW", kept: tuple[Any, ...] = ()) -> Row:
    """A row that cannot be embedded."""
    return Row(number, kept=kept, problem=Problem(reason, f"row {number} {message}"))


def checked_row(number: int, text: object, kept: tuple[Any, ...] = ()) -> Row:
    """A row, bad if its text is none or empty: the server would refuse it, and its whole batch would go twice."""
    if text is None:
        return bad_row(number, "has no text.", kept=kept)
    if not isinstance(text, str):
        return bad_row(number, f"has a text of type {type(text).__name__}; give a string.", kept=kept)
    if not text or text.isspace():
        return bad_row(number, "is empty or only white space.", reason="EMPTY_TEXT", kept=kept)
    return Row(number, text, kept)


def is_utf8(value: str) -> bool:
    """Whether the value can be written as UTF-8: no lone surrogate in it."""
    if value.isascii():
        return True
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True
