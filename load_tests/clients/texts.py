"""The work of the comparison: many different short Korean texts, cut out of the FAQ's answers."""

from __future__ import annotations

import json
import random
from pathlib import Path

FAQ = Path(__file__).resolve().parents[2] / "tests" / "data" / "debian-faq-ko" / "faq.jsonl"
_WORDS = (2, 8)


def short_texts(count: int, seed: int) -> list[str]:
    """Returns `count` different pieces of 2 to 8 words; the same seed gives the same ones."""
    with FAQ.open(encoding="utf-8") as lines:
        words = " ".join(json.loads(line)["answer_ko"] for line in lines).split()
    generator = random.Random(seed)
    # A dict keeps the order and refuses what is there already.
    texts: dict[str, None] = {}
    while len(texts) < count:
        start = generator.randrange(len(words) - _WORDS[1])
        piece = " ".join(words[start : start + generator.randint(*_WORDS)])
        # The answers are too few for so many pieces, so most end in a number, as titles and addresses do.
        texts[piece if piece not in texts else f"{piece} {len(texts)}"] = None
    return list(texts)
