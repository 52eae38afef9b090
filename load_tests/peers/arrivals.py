"""When calls come and what is in them: drawn from a seed, the same for every contestant."""

from __future__ import annotations

import itertools
import random
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Literal

Process = Literal["poisson", "constant"]
Kind = Literal["query", "document"]
TEXTS_A_CALL: Mapping[Kind, int] = {"query": 1, "document": 8}


@dataclass(frozen=True, slots=True)
class Workload:
    """A mix of calls."""

    name: str
    document_share: float
    """Of all calls; the others ask one question each."""


WORKLOADS = (Workload("questions", 0.0), Workload("mixed", 0.1))


@dataclass(frozen=True, slots=True)
class Call:
    """One call of a schedule."""

    due_s: float
    """From the start of the stretch."""
    kind: Kind
    places: tuple[int, ...]
    """Which of the texts of that kind."""

    def as_job(self) -> dict:
        """As the load generator reads it."""
        return asdict(self)


def make_schedule(
    workload: Workload, rate: float, seconds: float, seed: int, text_counts: Mapping[Kind, int], process: Process
) -> list[Call]:
    """Draws the calls of one stretch; the same arguments give the same calls.

    Args:
        workload: The mix.
        rate: Calls a second: the mean of the Poisson process, or exactly this many at equal distances.
        seconds: Length of the stretch; all calls are due within it.
        seed: Of the times, the kinds and the texts.
        text_counts: Texts there are of each kind.
        process: How they come.
    """
    generator = random.Random(f"{seed} {workload.name} {rate} {seconds} {process}")
    # In turns, so never twice in one call and seldom twice in flight: who embeds equal texts once, as Polarvec does,
    # would have less to do.
    turns = {kind: itertools.cycle(generator.sample(range(count), count)) for kind, count in text_counts.items()}
    calls: list[Call] = []
    due_s = 0.0
    while (due_s := due_s + (1 / rate if process == "constant" else generator.expovariate(rate))) < seconds:
        kind: Kind = "document" if generator.random() < workload.document_share else "query"
        calls.append(Call(due_s, kind, tuple(itertools.islice(turns[kind], TEXTS_A_CALL[kind]))))
    return calls
