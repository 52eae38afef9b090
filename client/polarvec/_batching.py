"""Cuts a list of texts into batches that fit the server's limits, keeping their order."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from polarvec_proto.v1 import embedding_pb2 as pb

from polarvec._errors import InvalidRequest, PolarvecError
from polarvec._types import Limits, Model

# Korean and English in XLM-R's tokens: 2.5 characters a token errs on the side of too many tokens. Where it does not,
# the server refuses the batch and the client halves it.
_CHARACTERS_A_TOKEN = 2.5
# A call is kept this small even where the server allows more: it fills a GPU's pack, and four of them at once take a
# CPU that does 2,000 tokens/s 16 s, well within the default deadline of 30 s.
_TOKENS_A_CALL = 8_192
# Tag and length of a text in the message.
_TEXT_OVERHEAD_BYTES = 6
# Room for what wraps the request, such as the item of a stream.
_REQUEST_OVERHEAD_BYTES = 64


@dataclass(frozen=True, slots=True)
class Batch:
    """Texts of one gRPC call; `indexes` are their places in the caller's list."""

    indexes: Sequence[int]
    texts: Sequence[str]

    def halves(self) -> tuple[Batch, Batch]:
        """Two batches of half the size; only for more than one text."""
        middle = len(self.texts) // 2
        return Batch(self.indexes[:middle], self.texts[:middle]), Batch(self.indexes[middle:], self.texts[middle:])

    def can_halve_after(self, error: PolarvecError) -> bool:
        """Whether the estimate was wrong: the server counts more tokens in the batch than a call may hold."""
        return error.reason == "TOO_MANY_TEXTS" and len(self.texts) > 1

    def in_callers_terms(self, error: PolarvecError) -> PolarvecError:
        """The error with the index of the caller's text in place of the batch's."""
        position = error.text_index
        return (
            error
            if position is None or position >= len(self.indexes)
            else error.with_text_index(self.indexes[position])
        )

    def without(self, position: int) -> Batch:
        """The batch without the text at `position`."""
        return Batch(
            [*self.indexes[:position], *self.indexes[position + 1 :]],
            [*self.texts[:position], *self.texts[position + 1 :]],
        )


class Batcher:
    """Takes texts one by one and hands out full batches; a text that fits none stands alone in its batch.

    An oversize text is sent all the same, so that the server says what is wrong with it.
    """

    def __init__(self, limits: Limits, *, max_token_count: int, fixed_bytes: int = 0) -> None:
        """Starts empty.

        Args:
            limits: The server's; a limit of 0 is none.
            max_token_count: The most tokens that the model reads of a text: no text costs more.
            fixed_bytes: Bytes of the request beside the texts.
        """
        self._max_text_count = limits.max_text_count or sys.maxsize
        self._max_request_bytes = limits.max_request_bytes or sys.maxsize
        self._max_call_tokens = limits.max_token_count or sys.maxsize
        self._max_token_count = max_token_count or sys.maxsize
        self._fixed_bytes = fixed_bytes
        self._indexes: list[int] = []
        self._texts: list[str] = []
        self._byte_count = self._fixed_bytes
        self._token_count = 0

    def add(self, index: int, text: str) -> Batch | None:
        """Takes one text; returns the batch before it if the text does not fit in.

        Raises:
            InvalidRequest: The text has a lone surrogate.
        """
        text_bytes = utf8_byte_count(text, index) + _TEXT_OVERHEAD_BYTES
        text_tokens = estimated_token_count(text, self._max_token_count)
        full = (
            len(self._texts) >= self._max_text_count
            or self._byte_count + text_bytes > self._max_request_bytes
            or self._token_count + text_tokens > self._max_call_tokens
        )
        batch = self.flush() if full else None
        self._indexes.append(index)
        self._texts.append(text)
        self._byte_count += text_bytes
        self._token_count += text_tokens
        return batch

    def flush(self) -> Batch | None:
        """The batch so far, if there is any text in it."""
        batch = Batch(self._indexes, self._texts) if self._texts else None
        self._indexes, self._texts, self._byte_count, self._token_count = [], [], self._fixed_bytes, 0
        return batch


def batcher_for(
    model: Model, template: pb.EmbedRequest | pb.TokenizeRequest, *, max_text_count: int | None = None
) -> Batcher:
    """A batcher for calls like the template.

    Args:
        model: Says the limits.
        template: The request without its texts.
        max_text_count: A smaller number of texts than the server allows.
    """
    limits, own = model.limits, max_text_count or model.limits.max_text_count
    allowed = min(own, limits.max_text_count or own)
    tokens = min(_TOKENS_A_CALL, limits.max_token_count or _TOKENS_A_CALL)
    return Batcher(
        replace(limits, max_text_count=allowed, max_token_count=tokens),
        max_token_count=model.max_token_count,
        fixed_bytes=template.ByteSize() + _REQUEST_OVERHEAD_BYTES,
    )


def batches(texts: Sequence[str], batcher: Batcher) -> Iterator[Batch]:
    """All texts in batches, in order.

    Raises:
        InvalidRequest: A text has a lone surrogate.
    """
    for index, text in enumerate(texts):
        if batch := batcher.add(index, text):
            yield batch
    if batch := batcher.flush():
        yield batch


def estimated_token_count(text: str, max_token_count: int) -> int:
    """Tokens that a text probably has, special tokens included."""
    estimate = math.ceil(len(text) / _CHARACTERS_A_TOKEN) + 2
    return min(estimate, max_token_count) if max_token_count > 0 else estimate


def utf8_byte_count(text: str, index: int) -> int:
    """Bytes of a text in UTF-8.

    Raises:
        InvalidRequest: It has a lone surrogate, which UTF-8 cannot carry.
    """
    if text.isascii():
        return len(text)
    try:
        return len(text.encode())
    except UnicodeEncodeError as error:
        raise InvalidRequest(
            f"texts[{index}] has a lone surrogate at character {error.start}; clean it, for example with "
            'text.encode("utf-8", "replace").decode().',
            reason="INVALID_TEXT",
            field=f"texts[{index}]",
            metadata={"index": str(index)},
        ) from None  # The cause holds the user's text.
