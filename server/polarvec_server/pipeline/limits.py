"""Refuses what needs no tokenizer to be refused: calls with too much or too little in them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from polarvec_server.errors import EmptyText, NoTexts, TextTooLong, TooManyTexts
from polarvec_server.pipeline.values import TextOptions


@dataclass(frozen=True, slots=True)
class CallLimits:
    """What one call may hold."""

    max_texts: int
    max_call_tokens: int
    max_request_bytes: int
    max_text_bytes: int

    def check_count(self, count: int, field: str) -> None:
        """Raises NoTexts or TooManyTexts."""
        if not count:
            raise NoTexts(field)
        if count > self.max_texts:
            raise TooManyTexts("text", count, self.max_texts, field)

    def check_tokens(self, count: int, field: str) -> None:
        """Raises TooManyTexts; `count` is of the caller's own list, repeats included."""
        if count > self.max_call_tokens:
            raise TooManyTexts("token", count, self.max_call_tokens, field)

    def check_texts(self, texts: Sequence[str], options: TextOptions, *, allow_empty: bool = False) -> None:
        """Raises NoTexts, TooManyTexts, EmptyText or TextTooLong."""
        self.check_count(len(texts), options.field)
        for index, text in enumerate(texts):
            if not allow_empty and (not text or text.isspace()):
                raise EmptyText(options.field, options.place(index))
            # A character has at most four bytes, so most texts need not be encoded to be measured.
            if len(text) * 4 > self.max_text_bytes:
                byte_count = len(text.encode())
                if byte_count > self.max_text_bytes:
                    raise TextTooLong(options.field, options.place(index), "byte", byte_count, self.max_text_bytes)
