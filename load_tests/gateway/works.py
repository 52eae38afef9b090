"""What is sent: short texts, and questions and answers of the FAQ."""

from __future__ import annotations

import json
from dataclasses import dataclass

from texts import FAQ, short_texts

_SHORT_COUNT = 4096
# Four times as many different texts as 64 callers of 32 texts have in hand.
_ANSWER_COUNT = 4 * 64 * 32


@dataclass(frozen=True, slots=True)
class Work:
    """Texts and how many of them make a call."""

    name: str
    texts: list[str]
    texts_a_call: int


def questions() -> list[str]:
    """The FAQ's questions in Korean."""
    return [pair["question_ko"] for pair in _faq()]


def answers(count: int) -> list[str]:
    """The FAQ's answers in Korean, in turns, each with a number before it that none else has.

    The server computes equal texts in flight once. So `count` must be well above what all callers have in hand.
    """
    pairs = _faq()
    return [f"{number} {pairs[number % len(pairs)]['answer_ko']}" for number in range(count)]


def usual_works() -> tuple[Work, Work, Work]:
    """Short texts singly and 32 a call, and real answers 32 a call."""
    short = short_texts(_SHORT_COUNT, 1)
    return (
        Work("1 short text", short, 1),
        Work("32 short texts", short, 32),
        Work("32 answers of the FAQ", answers(_ANSWER_COUNT), 32),
    )


def _faq() -> list[dict[str, str]]:
    with FAQ.open(encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]
