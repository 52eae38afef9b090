"""The work of a comparison: seeded Korean texts of 6 to 400 tokens, the prompts of a model, and one 16-token query."""

from __future__ import annotations

import hashlib
import json
import math
import random
from dataclasses import dataclass
from pathlib import Path

from tokenizers import Tokenizer

FAQ = Path(__file__).resolve().parents[2] / "tests" / "data" / "debian-faq-ko" / "faq.jsonl"
MIN_TOKENS, MAX_TOKENS, QUERY_TOKENS = 6, 400, 16
# Characters a token in these texts are 1.9 on average and at least 0.6; cutting this many is always enough.
_CHARACTERS_A_TOKEN = 8


@dataclass(frozen=True, slots=True)
class Work:
    """Texts without prompts, as Polarvec gets them, and the prompts that every peer gets put before them."""

    documents: list[str]
    document_prompt: str
    query: str
    query_prompt: str
    token_counts: list[int]
    """Tokens of each document as the model sees it: prompt and special tokens included."""

    @property
    def prompted_documents(self) -> list[str]:
        """What a library without prompts is given."""
        return [self.document_prompt + text for text in self.documents]

    @property
    def prompted_query(self) -> str:
        """The query for a library without prompts."""
        return self.query_prompt + self.query

    @property
    def key(self) -> str:
        """Changes with any text."""
        texts = json.dumps([*self.prompted_documents, self.prompted_query])
        return hashlib.sha256(texts.encode()).hexdigest()[:16]


def make_work(folder: Path, texts: int, max_tokens: int, seed: int) -> Work:
    """Questions, answers, and cuts and joins of answers; lengths spread evenly over their logarithm.

    Args:
        folder: The model's, for its tokenizer and its prompts.
        texts: How many.
        max_tokens: Of the longest text.
        seed: The same seed gives the same texts.
    """
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    prompts = json.loads((folder / "config_sentence_transformers.json").read_text())["prompts"]
    document_prompt = prompts.get("passage", prompts.get("document", ""))
    query_prompt = prompts.get("query", "")
    questions, answers = faq()
    generator = random.Random(seed)
    passage = _Passages(tokenizer, answers, document_prompt, generator)
    documents = [text for text in questions + answers if MIN_TOKENS <= passage.count(text) <= max_tokens][: texts // 4]
    while len(documents) < texts:
        documents.append(passage.of(round(math.exp(generator.uniform(math.log(MIN_TOKENS), math.log(max_tokens))))))
    generator.shuffle(documents)
    query = _Passages(tokenizer, questions, query_prompt, generator).exactly(QUERY_TOKENS)
    return Work(documents, document_prompt, query, query_prompt, [passage.count(text) for text in documents])


class _Passages:
    """Pieces of running text, cut at token boundaries."""

    def __init__(self, tokenizer: Tokenizer, texts: list[str], prompt: str, generator: random.Random) -> None:
        self._tokenizer, self._prompt, self._generator = tokenizer, prompt, generator
        shuffled = generator.sample(texts, len(texts))
        self._running = " ".join(shuffled)
        self._starts = [0] + [place + 1 for place, letter in enumerate(self._running) if letter == " "]
        # So much is there after the last start that is used, even for the longest text.
        self._starts = self._starts[: len(self._starts) * 2 // 3]

    def count(self, text: str) -> int:
        """Tokens with the prompt and the special tokens."""
        return len(self._tokenizer.encode(self._prompt + text).ids)

    def of(self, tokens: int) -> str:
        """A piece of about so many tokens, at least 6, from a random word on."""
        while self.count(text := self._cut(self._generator.choice(self._starts), tokens)) < MIN_TOKENS:
            pass
        return text

    def exactly(self, tokens: int) -> str:
        """A piece of exactly so many tokens."""
        while self.count(text := self.of(tokens)) != tokens:
            pass
        return text

    def _cut(self, start: int, tokens: int) -> str:
        piece = self._running[start : start + tokens * _CHARACTERS_A_TOKEN]
        offsets = self._tokenizer.encode(piece, add_special_tokens=False).offsets
        around = self.count("") if self._prompt else 2
        return piece[: offsets[max(1, min(tokens - around, len(offsets))) - 1][1]].strip()


def faq() -> tuple[list[str], list[str]]:
    """All questions and all answers, in Korean."""
    with FAQ.open(encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    return [row["question_ko"] for row in rows], [row["answer_ko"] for row in rows]
