"""Which texts run together: several short texts share a row of fixed length, rows of one length make a group.

Sharing rows under a block-diagonal attention mask was measured against padding texts of near-equal length: 12 x 384,
bf16, two cores with AMX, 768 texts of 6 to 400 tokens, tokens a second of CPU time in one run: rows of 128 in groups of
1,024 tokens 22,150, in groups of 512 20,940; padded to multiples of 16 in groups of 1,024 18,310, of 512 19,120. It
wastes 1 to 4 % on padding instead of 11 %, and few shapes occur, while every new shape costs OpenVINO 5 to 20 ms. Rows
of 64 (19,300) or of 256 (18,100) alone are slower on mixed lengths; letting each window choose among several costs
these nothing and gives texts of 64 tokens 10 % (23,400 against 21,350).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

# Texts up to this share rows; longer ones get a row of their own length, whose rest short texts fill.
ROW_TOKENS = 128
# AMX tiles: lengths that are no multiple of 16 cost 30 to 40 % more (8 x 63 tokens 32 ms, 8 x 64 22 ms).
_STEP, _LONG_STEP = 16, 32
# A shared row needs a mask of its square; past this length a text stays alone and needs one line only.
_MAX_SHARED_TOKENS = 512
# Texts are taken in the order given, this many tokens at once: early answers for the first, enough choice to fill rows.
_WINDOW_TOKENS = 8192
# Row lengths tried for each window, the best for mixed texts first; odd multiples of 16 (48, 112) cost a tenth more.
_ROW_SIZES = (ROW_TOKENS, 160, 96, 80, 64, 32)
# What attention adds for each token of a row: 39 us a token in rows of 64, 42 of 128, 52 of 256 (12 x 384, bf16).
_ATTENTION = 1 / 800
# What a forward pass costs beside its tokens, in tokens (1 x 16 2.0 ms, 1 x 128 7.6, 2 x 128 14, 8 x 128 44): rows are
# lengthened by so much in all to run together.
_PASS_TOKENS = 48
# For the same reason a group may be overfull when that saves a last, small one.
_OVERFULL = 1.25


@dataclass(frozen=True, slots=True)
class Group:
    """Texts that run in one forward pass, laid out in `row_count` rows of `row_tokens`."""

    texts: NDArray[np.int64]
    """(k,) which texts of the batch."""
    rows: NDArray[np.int64]
    """(k,) the row each lies in."""
    columns: NDArray[np.int64]
    """(k,) where in its row each begins."""
    row_count: int
    row_tokens: int
    shared: bool
    """False where every row holds one text only, by its length."""


@dataclass(slots=True)
class _Row:
    tokens: int
    room: int
    texts: list[int]
    columns: list[int]


def plan_groups(lengths: NDArray[np.int32], group_tokens: int) -> Iterator[Group]:
    """Cut a batch into groups; every text is in exactly one.

    Args:
        lengths: (N,) tokens of each text.
        group_tokens: About the tokens of a group, padding included; one row may be longer.
    """
    ends = np.cumsum(lengths, dtype=np.int64)
    first = 0
    while first < lengths.size:
        limit = ends[first] - lengths[first] + _WINDOW_TOKENS
        last = max(int(np.searchsorted(ends, limit, side="right")), first + 1)
        yield from _plan_window(lengths[first:last], first, group_tokens)
        first = last


def _plan_window(lengths: NDArray[np.int32], offset: int, group_tokens: int) -> Iterator[Group]:
    order = np.argsort(-lengths, kind="stable")
    descending = [(int(text), int(lengths[text])) for text in order]
    rows = min((_fill(descending, size) for size in _row_sizes(descending)), key=_cost)
    rows.sort(key=lambda row: row.tokens)
    while rows:
        count = _alike(rows, group_tokens)
        yield _group(rows[:count], offset)
        rows = rows[count:]


def _alike(rows: Sequence[_Row], group_tokens: int) -> int:
    """Count the rows, shortest first, that run together; all take the length of the longest."""
    rest = sum(row.tokens for row in rows)
    limit = rest if rest <= group_tokens * _OVERFULL else group_tokens
    count = total = 0
    for row in rows:
        total += row.tokens
        padded = (count + 1) * row.tokens
        mixed = rows[0].tokens <= _MAX_SHARED_TOKENS < row.tokens
        if count and (total > limit or padded > total + _PASS_TOKENS or mixed):
            break
        count += 1
    return count


def _row_sizes(descending: Sequence[tuple[int, int]]) -> Sequence[int]:
    """List the row lengths worth trying; of equally good ones the first is taken."""
    total = sum(length for _, length in descending)
    return (*_ROW_SIZES, _round_up(total, _STEP)) if total <= ROW_TOKENS else _ROW_SIZES


def _cost(rows: Sequence[_Row]) -> float:
    """Estimate the work of rows in tokens: attention adds more the longer a row is, and each length is a pass."""
    passes = len({row.tokens for row in rows})
    return passes * _PASS_TOKENS + sum(row.tokens * (1 + row.tokens * _ATTENTION) for row in rows)


def _fill(descending: Sequence[tuple[int, int]], row_tokens: int) -> list[_Row]:
    """Best-fit decreasing: each text goes into the row with the least room that still holds it."""
    rows: list[_Row] = []
    by_room: dict[int, list[_Row]] = {}
    rooms = 0  # bit r is set where some row has room r: the best fit is then one bit operation
    for text, length in descending:
        fitting = rooms >> length
        if fitting:
            room = length + (fitting & -fitting).bit_length() - 1
            row = by_room[room].pop()
            if not by_room[room]:
                rooms &= ~(1 << room)
        else:
            tokens = row_tokens if length <= row_tokens else _round_up(length, _LONG_STEP)
            row = _Row(tokens, tokens, [], [])
            rows.append(row)
        row.texts.append(text)
        row.columns.append(row.tokens - row.room)
        row.room -= length
        if row.room and row.tokens <= _MAX_SHARED_TOKENS:
            by_room.setdefault(row.room, []).append(row)
            rooms |= 1 << row.room
    return rows


def _group(rows: Sequence[_Row], offset: int) -> Group:
    return Group(
        texts=np.array([text for row in rows for text in row.texts], np.int64) + offset,
        rows=np.repeat(np.arange(len(rows)), [len(row.texts) for row in rows]),
        columns=np.array([column for row in rows for column in row.columns], np.int64),
        row_count=len(rows),
        row_tokens=rows[-1].tokens,
        shared=rows[-1].tokens <= _MAX_SHARED_TOKENS,
    )


def _round_up(number: int, step: int) -> int:
    return -(-number // step) * step
