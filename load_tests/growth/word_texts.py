"""Different texts of a wanted number of tokens, made of real Korean words in their real order."""

from __future__ import annotations

import json
import random
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

FAQ = Path(__file__).resolve().parents[2] / "tests" / "data" / "debian-faq-ko" / "faq.jsonl"
# One token in XLM-R's vocabulary wherever it stands.
_FILLER = "가"
_SPECIAL_TOKENS = 2


class WordTexts:
    """Cuts texts out of the FAQ's answers; XLM-R's tokenizer takes word by word, so words' tokens add up."""

    def __init__(self, tokenizer_file: Path, prompt: str = "") -> None:
        """Counts the tokens of every word.

        Args:
            tokenizer_file: Of the model that will read the texts.
            prompt: What the server puts before each; its tokens count.
        """
        self._tokenizer = tokenizer = Tokenizer.from_file(str(tokenizer_file))
        with FAQ.open(encoding="utf-8") as lines:
            words = " ".join(json.loads(line)["answer_ko"] for line in lines).split()
        encoded = tokenizer.encode_batch_fast(words, add_special_tokens=False)
        # The longest text is read past the end, from the start again.
        self._words = words
        self._ends = np.cumsum([len(word.ids) for word in encoded])
        self._prompt_tokens = len(tokenizer.encode(prompt, add_special_tokens=False).ids)

    def make(self, count: int, tokens: int, seed: int) -> list[str]:
        """Returns `count` texts, each `tokens` long with prompt and special tokens; the same seed, the same texts.

        Each begins with a number of its own, so that no two are equal and none is answered for another.
        """
        generator = random.Random(seed)
        marks = [str(number) for number in range(count)]
        encoded = self._tokenizer.encode_batch_fast(marks, add_special_tokens=False)
        rooms = [tokens - _SPECIAL_TOKENS - self._prompt_tokens - len(mark.ids) for mark in encoded]
        return [f"{mark} {self._words_of(generator, room)}" for mark, room in zip(marks, rooms, strict=True)]

    def _words_of(self, generator: random.Random, room: int) -> str:
        """Real words of `room` tokens in all; one-token words fill what no word fits into."""
        words: list[str] = []
        place = generator.randrange(len(self._words))
        while room > 0:
            before = int(self._ends[place - 1]) if place else 0
            last = int(np.searchsorted(self._ends, before + room, side="right"))
            if last == place:
                break
            words += self._words[place:last]
            room -= int(self._ends[last - 1]) - before
            place = last % len(self._words)
        return " ".join(words + [_FILLER] * room)
