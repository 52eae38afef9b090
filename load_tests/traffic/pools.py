"""The texts of a workload, made from real Korean questions and answers; the same for the same seed."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from traffic.workload import BadWorkload

FAQ = Path(__file__).resolve().parents[2] / "tests" / "data" / "debian-faq-ko" / "faq.jsonl"

Count = Callable[[list[str]], list[int]]
"""Tokens of each text, as the server counts them."""


def build_pools(spec: Mapping[str, Any], seed: int, count_tokens: Count, max_tokens: int) -> dict[str, list[str]]:
    """Every pool's texts.

    Args:
        spec: A workload.
        seed: Decides which pieces and which long documents.
        count_tokens: Asks the server.
        max_tokens: The most tokens that its model reads of a text; longer documents are not made.
    """
    with FAQ.open(encoding="utf-8") as lines:
        pairs = [json.loads(line) for line in lines]
    questions = list(dict.fromkeys(pair["question_ko"] for pair in pairs))
    answers = list(dict.fromkeys(pair["answer_ko"] for pair in pairs))
    pools = {}
    for name, pool in spec["pools"].items():
        generator = random.Random(f"{seed} {name}")
        match pool["from"]:
            case "questions":
                pools[name] = _numbered(questions, pool.get("copies", 1))
            case "answers":
                pools[name] = _numbered(answers, pool.get("copies", 1))
            case "pieces":
                pools[name] = _pieces(answers, pool["count"], tuple(pool["word_count"]), generator)
            case "joined":
                lengths = [min(limit, max_tokens) for limit in pool["token_count"]]
                pools[name] = _joined(answers, pool["count"], lengths, generator, count_tokens)
            case other:
                raise BadWorkload(f"The pool {name} is from {other}; questions, answers, pieces and joined are known.")
    return pools


def _numbered(texts: list[str], copies: int) -> list[str]:
    """The texts as they are, then with numbers before them: so few would meet themselves in flight.

    The server computes equal texts in flight once, so they would make it look faster than it is.
    """
    return texts + [f"{copy}. {text}" for copy in range(2, copies + 1) for text in texts]


def _pieces(answers: list[str], count: int, word_count: tuple[int, int], generator: random.Random) -> list[str]:
    words = " ".join(answers).split()
    texts: dict[str, None] = {}  # A dict keeps the order and refuses what is there already.
    while len(texts) < count:
        start = generator.randrange(len(words) - word_count[1])
        piece = " ".join(words[start : start + generator.randint(*word_count)])
        # The answers are too few for many different short pieces, so some end in a number, as titles do.
        texts[piece if piece not in texts else f"{piece} {len(texts)}"] = None
    return list(texts)


def _joined(
    answers: list[str], count: int, lengths: list[int], generator: random.Random, count_tokens: Count
) -> list[str]:
    """Documents whose lengths are spread evenly over the octaves; cut by letters, so within some percent."""
    tokens_a_letter = sum(count_tokens(answers)) / sum(map(len, answers))
    texts = []
    for number in range(count):
        position = number / max(1, count - 1)
        target = math.exp(math.log(lengths[0]) * (1 - position) + math.log(lengths[1]) * position)
        letters, text = int(target / tokens_a_letter), ""
        while len(text) < letters:
            text += generator.choice(answers) + "\n"
        texts.append(text[:letters])
    generator.shuffle(texts)
    return texts
