"""Decides, before a text is tokenized, whether there is room for a call's tokens."""

from __future__ import annotations

import asyncio
import collections
import random
from collections.abc import Callable, Sequence
from types import TracebackType

from polarvec_server.errors import Overloaded
from polarvec_server.pipeline.values import Priority

# Measured on the Korean FAQ and its English twin with the XLM-R vocabulary: 1.9 to 4.5 characters a token.
_CHARACTERS_PER_TOKEN = 2.5
_SPECIAL_TOKENS = 2
_LONGEST_DELAY_S = 30.0
_SHORTEST_DELAY_S = 0.05
# An estimated wait must be this many times the time left before a call is refused for it: estimates are rough.
_WAIT_MARGIN = 2.0


def estimate_tokens(texts: Sequence[str], prompt: str, max_tokens: int) -> int:
    """Guesses the tokens of texts from their characters; no text counts for more than the model reads."""
    prompt_characters = len(prompt)
    return sum(
        min(max_tokens, int((prompt_characters + len(text)) / _CHARACTERS_PER_TOKEN) + _SPECIAL_TOKENS)
        for text in texts
    )


class Ticket:
    """A call's share of the token budget; a context manager that gives it back."""

    def __init__(self, admission: Admission, tokens: int, priority: Priority) -> None:
        self._admission, self._tokens, self._priority = admission, tokens, priority

    def settle(self, tokens: int) -> None:
        """Replaces the estimate by the exact number of tokens."""
        self._admission._change(tokens - self._tokens, self._priority)
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
            budget_tokens: Most tokens held at a time; a larger call is let in when nothing else is there.
            tokens_per_s: The measured rate of the encoder, None until there is one.
        """
        self._budget = budget_tokens
        self._tokens_per_s = tokens_per_s
        self._held = dict.fromkeys(Priority, 0)
        self._waiting: collections.deque[tuple[int, Priority, asyncio.Future[Ticket]]] = collections.deque()

    @property
    def held_tokens(self) -> int:
        """Tokens of all calls that are in."""
        return sum(self._held.values())

    def admit(self, tokens: int, priority: Priority, time_left_s: float | None) -> Ticket:
        """Lets a call in, or refuses it at once.

        Raises:
            Overloaded: The budget is used up, or the work ahead takes far longer than the caller waits.
        """
        if not self._fits(tokens):
            raise Overloaded(self._delay_s(self.held_tokens + tokens - self._budget))
        rate = self._tokens_per_s()
        # Interactive calls overtake bulk, so bulk is no work ahead of them.
        ahead = self._held[Priority.INTERACTIVE] + (self._held[Priority.BULK] if priority is Priority.BULK else 0)
        if ahead and rate and time_left_s is not None and ahead / rate > _WAIT_MARGIN * time_left_s:
            raise Overloaded(self._delay_s(ahead - time_left_s * rate))
        return self._let_in(tokens, priority)

    async def wait_for_room(self, tokens: int, priority: Priority) -> Ticket:
        """Waits, first come, first served, until a call fits: the flow control of streams."""
        if not self._waiting and self._fits(tokens):
            return self._let_in(tokens, priority)
        entered: asyncio.Future[Ticket] = asyncio.get_running_loop().create_future()
        entry = (tokens, priority, entered)
        self._waiting.append(entry)
        try:
            return await entered
        except asyncio.CancelledError:
            if entry in self._waiting:
                self._waiting.remove(entry)
            elif not entered.cancelled():
                entered.result().settle(0)
            raise

    def _fits(self, tokens: int) -> bool:
        return not self.held_tokens or self.held_tokens + tokens <= self._budget

    def _let_in(self, tokens: int, priority: Priority) -> Ticket:
        self._held[priority] += tokens
        return Ticket(self, tokens, priority)

    def _change(self, tokens: int, priority: Priority) -> None:
        self._held[priority] += tokens
        while self._waiting and self._fits(self._waiting[0][0]):
            waiting_tokens, waiting_priority, entered = self._waiting.popleft()
            if not entered.done():
                entered.set_result(self._let_in(waiting_tokens, waiting_priority))

    def _delay_s(self, excess_tokens: float) -> float:
        """Time until that many tokens are done, with jitter so that refused callers do not come back together."""
        rate = self._tokens_per_s()
        seconds = excess_tokens / rate if rate else 1.0
        return min(_LONGEST_DELAY_S, max(_SHORTEST_DELAY_S, seconds) * random.uniform(0.8, 1.2))
