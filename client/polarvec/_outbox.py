"""The items of one bulk job that are to be sent or under way, and which call has them; does no I/O itself."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from polarvec._batching import Batch


@dataclass(frozen=True, slots=True)
class Item:
    """One item of the stream; its times are on the job's clock."""

    batch: Batch
    first_s: float
    """When it was ready for the first time."""
    attempt: int = 1
    due_s: float = 0.0
    """When it may be sent."""


class Outbox:
    """Numbers the items and shares them out over the lanes: calls to endpoints, one each."""

    def __init__(self, clock: Callable[[], float]) -> None:
        """Starts empty.

        Args:
            clock: Seconds that never go back.
        """
        self._clock = clock
        self._waiting: deque[Item] = deque()
        self._sent: dict[int, tuple[int, Item]] = {}
        self._load: Counter[int] = Counter()
        self._item_number = 0

    def __bool__(self) -> bool:
        """Whether there is any item."""
        return bool(self._sent or self._waiting)

    @property
    def has_sent(self) -> bool:
        """Whether an answer is to come."""
        return bool(self._sent)

    def put(self, batch: Batch) -> None:
        """Takes a new item."""
        self._waiting.append(Item(batch, self._clock()))

    def put_again(self, item: Item, delay_s: float) -> None:
        """Takes back an item that was answered, for another attempt."""
        self._waiting.append(Item(item.batch, item.first_s, item.attempt + 1, self._clock() + delay_s))

    def take(self, lanes: Sequence[int]) -> Iterator[tuple[int, int, Item]]:
        """(lane, number, item) of what is to be sent now, each to the lane that has the least under way.

        Args:
            lanes: Those that may be used, the first one first among equals.
        """
        now_s = self._clock()
        for _ in range(len(self._waiting) if lanes else 0):
            item = self._waiting.popleft()
            if item.due_s > now_s:
                self._waiting.append(item)
                continue
            lane = min(lanes, key=self._load.__getitem__) if len(lanes) > 1 else lanes[0]
            self._item_number += 1
            self._sent[self._item_number] = lane, item
            self._load[lane] += 1
            yield lane, self._item_number, item

    def answered(self, number: int) -> Item | None:
        """The item of an answer; None if no such item is under way."""
        lane, item = self._sent.pop(number, (None, None))
        if lane is not None:
            self._load[lane] -= 1
        return item

    def take_back(self, lane: int) -> None:
        """The lane's call broke: what was under way in it goes first again."""
        lost = sorted(number for number, (own, _) in self._sent.items() if own == lane)
        self._waiting.extendleft(self._sent.pop(number)[1] for number in reversed(lost))
        del self._load[lane]

    def busy_lanes(self) -> list[int]:
        """Lanes that an answer is to come from."""
        return [lane for lane, item_count in self._load.items() if item_count]

    def next_due_s(self) -> float:
        """When the first item that waits for its time may be sent; infinity if there is none."""
        return min((item.due_s for item in self._waiting if item.due_s), default=float("inf"))
