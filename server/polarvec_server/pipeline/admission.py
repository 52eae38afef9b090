"""Decides, before a text is tokenized, whether there is room for a call's tokens."""

from __future__ import annotations

import asyncio
import collections
import enum
import random
import time
from collections.abc import Callable, Sequence
from types import TracebackType

from polarvec_server.errors import Overloaded
from polarvec_server.pipeline.values import Priority

# Measured on the Korean FAQ and its English twin with the XLM-R vocabulary: 1.9 to 4.5 characters a token.
_CHARACTERS_PER_TOKEN = 2.5
_SPECIAL_TOKENS = 2
_LONGEST_DELAY_S = 30.0
_SHORTEST_DELAY_S = 0.05
# Refused callers are told to come back one behind the other, as far as this: those who never do hold nobody up longer.
_LONGEST_LINE_S = 5.0
# An estimated wait must be this many times the time left before a call is refused for it: estimates are rough.
_WAIT_MARGIN = 2.0


def estimate_tokens(texts: Sequence[str], prompt: str, max_tokens: int) -> int:
    """Guesses the tokens of texts from their characters; no text counts for more than the model reads."""
    prompt_characters = len(prompt)
    return sum(
        min(max_tokens, int((prompt_characters + len(text)) / _CHARACTERS_PER_TOKEN) + _SPECIAL_TOKENS)
        for text in texts
    )


class Kind(enum.Enum):
    """Three kinds of work, each with a share of the budget of its own, so that none crowds out another."""

    INTERACTIVE = "interactive"
    BULK = "bulk"
    STREAM = "stream"

    @property
    def share(self) -> float:
        """Part of the budget."""
        return 0.5 if self is Kind.INTERACTIVE else 0.25


class Ticket:
    """A call's share of the token budget; a context manager that gives it back."""

    def __init__(self, admission: Admission, tokens: int, kind: Kind) -> None:
        self._admission, self._tokens, self._kind = admission, tokens, kind

    def settle(self, tokens: int) -> None:
        """Replaces the estimate by the exact number of tokens."""
        self._admission._change(tokens - self._tokens, self._kind)
        self._tokens = tokens

    def __enter__(self) -> Ticket:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.settle(0)


class Admission:
    """The token budget of one worker and one model."""

    def __init__(self, budget_tokens: int, tokens_per_s: Callable[[], float | None]) -> None:
        """Keeps what it works with.

        Args:
            budget_tokens: Most tokens held at a time, shared out by `Kind`; a call that is larger than its kind's
                share is let in when nothing else of that kind is there.
            tokens_per_s: The measured rate of the encoder, None until there is one.
        """
        self._budget = budget_tokens
        self._tokens_per_s = tokens_per_s
        self._held = dict.fromkeys(Kind, 0)
        # When the work of the callers who were told to come back is done, on the clock of time.monotonic.
        self._promised_until = dict.fromkeys(Kind, 0.0)
        self._waiting: collections.deque[tuple[int, asyncio.Future[Ticket]]] = collections.deque()

    @property
    def held_tokens(self) -> int:
        """Tokens of all calls that are in."""
        return sum(self._held.values())

    def share_tokens(self, priority: Priority) -> int:
        """Tokens of calls of this priority that are let in together."""
        kind = Kind.INTERACTIVE if priority is Priority.INTERACTIVE else Kind.BULK
        return int(kind.share * self._budget)

    def admit(self, tokens: int, priority: Priority, time_left_s: float | None) -> Ticket:
        """Lets a call in, or refuses it at once.

        Raises:
            Overloaded: The share is used up, or the work ahead takes far longer than the caller waits.
        """
        kind = Kind.INTERACTIVE if priority is Priority.INTERACTIVE else Kind.BULK
        if not self._fits(tokens, kind):
            raise Overloaded(self._place_in_line_s(tokens, kind))
        rate = self._tokens_per_s()
        # Interactive calls overtake everything else, so only their own kind is ahead of them.
        ahead = self._held[kind] if kind is Kind.INTERACTIVE else self.held_tokens
        if ahead and rate and time_left_s is not None and ahead / rate > _WAIT_MARGIN * time_left_s:
            raise Overloaded(self._delay_s(ahead - time_left_s * rate))
        return self._let_in(tokens, kind)

    async def wait_for_room(self, tokens: int) -> Ticket:
        """Waits, first come, first served, until an item of a stream fits: the flow control of streams."""
        if not self._waiting and self._fits(tokens, Kind.STREAM):
            return self._let_in(tokens, Kind.STREAM)
        entered: asyncio.Future[Ticket] = asyncio.get_running_loop().create_future()
        entry = (tokens, entered)
        self._waiting.append(entry)
        try:
            return await entered
        except asyncio.CancelledError:
            if entry in self._waiting:
                self._waiting.remove(entry)
                # The one behind may fit where this one did not.
                self._change(0, Kind.STREAM)
            elif not entered.cancelled():
                entered.result().settle(0)
            raise

    def _fits(self, tokens: int, kind: Kind) -> bool:
        return not self._held[kind] or self._held[kind] + tokens <= kind.share * self._budget

    def _let_in(self, tokens: int, kind: Kind) -> Ticket:
        self._held[kind] += tokens
        return Ticket(self, tokens, kind)

    def _change(self, tokens: int, kind: Kind) -> None:
        self._held[kind] += tokens
        while self._waiting and self._fits(self._waiting[0][0], Kind.STREAM):
            waiting_tokens, entered = self._waiting.popleft()
            if not entered.done():
                entered.set_result(self._let_in(waiting_tokens, Kind.STREAM))

    def _place_in_line_s(self, tokens: int, kind: Kind) -> float:
        """Time until there is room for a refused call, behind those that were refused before it."""
        rate, now = self._tokens_per_s(), time.monotonic()
        delay_s = self._delay_s(self._held[kind] + tokens - kind.share * self._budget)
        line_s = min(max(0.0, self._promised_until[kind] - now - delay_s), _LONGEST_LINE_S)
        self._promised_until[kind] = now + delay_s + line_s + (tokens / rate if rate else 0.0)
        return min(_LONGEST_DELAY_S, delay_s + line_s)

    def _delay_s(self, excess_tokens: float) -> float:
        """Time until that many tokens are done, with jitter so that refused callers do not come back together."""
        rate = self._tokens_per_s()
        seconds = excess_tokens / rate if rate else 1.0
        return min(_LONGEST_DELAY_S, max(_SHORTEST_DELAY_S, seconds) * random.uniform(0.8, 1.2))
