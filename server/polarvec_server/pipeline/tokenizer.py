"""Turns prefixed texts into token ids, cut or refused at the model's limit."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, chain
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer as RustTokenizer

from polarvec_server.errors import ConfigError, InvalidField, TextTooLong
from polarvec_server.pipeline.values import TextOptions, Tokenized, TokenPieces, Truncation

# What tiktoken makes of a text for OpenAI's own models is the usual case.
_FOREIGN_IDS = (
    "holds token ids that are not this model's with its special tokens, as Tokenize gives them; send texts instead "
    "(LangChain's OpenAIEmbeddings: check_embedding_ctx_length=False)"
)
# `encode_batch_fast` lets other threads run meanwhile. For a short text that takes longer than the text itself: the
# thread that reads gRPC's events takes over, and has to be waited for.
_SHORT_CHARACTERS = 500


class Tokenizer:
    """The tokenizer of one model; safe in several threads, and it releases the GIL while it works."""

    def __init__(self, tokenizer_file: Path, max_tokens: int) -> None:
        try:
            self._tokenizer = RustTokenizer.from_file(str(tokenizer_file))
        except Exception as error:
            raise ConfigError(f"{tokenizer_file} is not a tokenizer that the package tokenizers reads.") from error
        # The folder's own padding and truncation are for other callers; lengths are ours to rule.
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        self.max_tokens = max_tokens
        self._head, self._tail = self._special_tokens()
        self._vocabulary_size = self._tokenizer.get_vocab_size(with_added_tokens=True)

    def _special_tokens(self) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        """Finds the special tokens that go before and after every text."""
        encoding = self._tokenizer.encode("a")
        ids, special = np.array(encoding.ids, np.int32), np.array(encoding.special_tokens_mask, bool)
        content = np.flatnonzero(~special)
        if content.size == 0:
            raise ConfigError("The model's tokenizer makes no token out of the letter a.")
        return ids[: content[0]], ids[content[-1] + 1 :]

    def tokenize(self, texts: Sequence[str], prompt: str, options: TextOptions) -> Tokenized:
        """Tokenizes texts behind a prompt.

        Returns:
            The token ids, special tokens included; no text has more than `max_tokens`.

        Raises:
            TextTooLong: A text has more tokens than the model reads, and no truncation was asked for.
        """
        prefixed = [prompt + text for text in texts] if prompt else list(texts)
        if len(prefixed) == 1 and len(prefixed[0]) < _SHORT_CHARACTERS:
            ids = [self._tokenizer.encode(prefixed[0]).ids]
        else:
            ids = [encoding.ids for encoding in self._tokenizer.encode_batch_fast(prefixed)]
        return self._fit(ids, prompt, options)

    def read_token_ids(self, ids: Sequence[Sequence[int]], options: TextOptions) -> Tokenized:
        """Takes texts that are tokens already, with their prompt and special tokens.

        Raises:
            InvalidField: Ids that this tokenizer would not have made.
            TextTooLong: As `tokenize`.
        """
        head, tail = self._head.tolist(), self._tail.tolist()
        for index, given in enumerate(ids):
            framed = len(given) >= len(head) + len(tail)
            framed = framed and [*given[: len(head)]] == head and [*given[len(given) - len(tail) :]] == tail
            if not framed or min(given) < 0 or max(given) >= self._vocabulary_size:
                raise InvalidField(f"{options.field}[{options.place(index)}]", _FOREIGN_IDS)
        return self._fit([list(given) for given in ids], "", options)

    def _fit(self, ids: list[list[int]], prompt: str, options: TextOptions) -> Tokenized:
        """Cuts or refuses what is over the limit; changes `ids`."""
        counts = [len(text_ids) for text_ids in ids]
        full_counts = np.array(counts, np.int64)
        too_long = [index for index, count in enumerate(counts) if count > self.max_tokens]
        prompt_tokens = self._count_prompt(prompt) if too_long else 0
        for index in too_long:
            if options.truncation is Truncation.REFUSE:
                raise TextTooLong(options.field, options.place(index), "token", counts[index], self.max_tokens)
            ids[index] = self._cut(ids[index], prompt_tokens, options.truncation)
        offsets = np.array(list(accumulate(map(len, ids), initial=0)), np.int64)
        token_ids = np.fromiter(chain.from_iterable(ids), np.int32, int(offsets[-1]))
        return Tokenized(token_ids, offsets, full_counts)

    def split(self, text: str, *, special_tokens: bool) -> TokenPieces:
        """Returns the tokens of a text, uncut, each with the piece of the text that it covers.

        Args:
            text: The text, its prompt included.
            special_tokens: Whether to add the tokens that the model puts around a text.
        """
        encoding = self._tokenizer.encode(text, add_special_tokens=special_tokens)
        special = [bool(mark) for mark in encoding.special_tokens_mask]
        spans = encoding.offsets
        places = np.array(spans, np.int64).reshape(-1, 2)
        if not text.isascii():
            places = _byte_places(text)[places]
        starts, stops = places.T.tolist()
        pieces = [
            name if mark else text[start:stop]
            for name, mark, (start, stop) in zip(encoding.tokens, special, spans, strict=True)
        ]
        return TokenPieces(encoding.ids, pieces, special, starts, stops)

    def join(self, ids: Sequence[int], *, skip_special_tokens: bool) -> str:
        """Returns the text that tokens stand for. Raises InvalidField for an id that the vocabulary does not have."""
        unknown = {token_id for token_id in set(ids) if self._tokenizer.id_to_token(token_id) is None}
        if unknown:
            index = next(index for index, token_id in enumerate(ids) if token_id in unknown)
            raise InvalidField(f"ids[{index}]", "is no token of this model")
        return str(self._tokenizer.decode(ids, skip_special_tokens=skip_special_tokens))

    def _count_prompt(self, prompt: str) -> int:
        """Counts the tokens that are the prompt's alone: its last blank belongs to the text's first token."""
        return len(self._tokenizer.encode(prompt.rstrip(), add_special_tokens=False).ids) if prompt.strip() else 0

    def _cut(self, ids: list[int], prompt_tokens: int, truncation: Truncation) -> list[int]:
        """Cuts one text to the limit; the special tokens stay, and the prompt too when the start is cut."""
        content = ids[len(self._head) : len(ids) - len(self._tail)]
        room = self.max_tokens - len(self._head) - len(self._tail)
        if truncation is Truncation.END:
            kept = content[:room]
        else:
            keep_prompt = min(prompt_tokens, room)
            kept = content[:keep_prompt] + content[len(content) - (room - keep_prompt) :]
        return [*self._head.tolist(), *kept, *self._tail.tolist()]


def _byte_places(text: str) -> NDArray[np.int64]:
    """Returns the place in UTF-8 of each character of a text, and of its end: (characters + 1,) int64."""
    codes = np.frombuffer(text.encode("utf-32-le"), "<u4")
    places = np.zeros(len(codes) + 1, np.int64)
    np.cumsum(1 + (codes >= 0x80) + (codes >= 0x800) + (codes >= 0x10000), out=places[1:])
    return places
