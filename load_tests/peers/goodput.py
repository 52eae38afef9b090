"""What a stretch at one rate gave: percentiles that count what was never answered, and right answers in time."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from arrivals import Kind

# Beyond these a contestant has failed at a rate and is spared the higher ones.
MAX_P99_MS, MAX_BAD_SHARE = 5000.0, 0.05


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of one call."""

    kind: Kind
    tokens: int
    latency_ms: float | None
    """From the time at which the call was due; None: no answer."""
    problem: str
    """Empty for a right answer: dropped, no answer in time, wrong vectors, or the name of an error."""


@dataclass(slots=True)
class Stretch:
    """One contestant at one rate of one workload; the rounds are added up."""

    seconds: float = 0.0
    answers: list[Answer] = field(default_factory=list)
    server_cpu_s: float = 0.0
    generator_cpu_s: float = 0.0
    others: float = 0.0
    """Largest share of the cores that somebody else had."""

    def add(self, other: Stretch) -> None:
        """Puts the same rate of another round to it."""
        self.seconds += other.seconds
        self.answers += other.answers
        self.server_cpu_s += other.server_cpu_s
        self.generator_cpu_s += other.generator_cpu_s
        self.others = max(self.others, other.others)

    def percentile_ms(self, percent: float, kind: Kind) -> float | None:
        """Latency that so many of all calls due kept (nearest rank); infinite if they had no answer; None: no calls."""
        latencies = sorted(
            math.inf if answer.problem or answer.latency_ms is None else answer.latency_ms
            for answer in self.answers
            if answer.kind == kind
        )
        return latencies[max(0, math.ceil(percent / 100 * len(latencies)) - 1)] if latencies else None

    def good_count(self, slo_ms: Mapping[Kind, float]) -> int:
        """Right answers within their objective."""
        return sum(
            not answer.problem and answer.latency_ms is not None and answer.latency_ms <= slo_ms[answer.kind]
            for answer in self.answers
        )

    def goodput(self, slo_ms: Mapping[Kind, float]) -> float:
        """Right answers within their objective, calls a second."""
        return self.good_count(slo_ms) / self.seconds

    @property
    def offered(self) -> float:
        """Calls that were due, a second."""
        return len(self.answers) / self.seconds

    @property
    def failures(self) -> dict[str, int]:
        """Calls without a right answer, by the reason."""
        return dict(Counter(answer.problem for answer in self.answers if answer.problem))

    @property
    def cpu_s_per_mtok(self) -> float | None:
        """CPU seconds of the server for a million tokens that it answered rightly; None: none."""
        return self._per_mtok(self.server_cpu_s)

    @property
    def generator_cpu_s_per_mtok(self) -> float | None:
        """CPU seconds of the load generator, and with it of the client, for the same tokens."""
        return self._per_mtok(self.generator_cpu_s)

    @property
    def failed(self) -> bool:
        """Whether a higher rate is pointless: p99 over 5 s, or more than 5 % of the calls without a right answer."""
        p99s = [self.percentile_ms(99, kind) for kind in ("query", "document")]
        slow = any(p99 is not None and MAX_P99_MS < p99 < math.inf for p99 in p99s)
        return slow or sum(self.failures.values()) > MAX_BAD_SHARE * len(self.answers)

    def _per_mtok(self, cpu_s: float) -> float | None:
        tokens = sum(answer.tokens for answer in self.answers if not answer.problem)
        return cpu_s / tokens * 1e6 if tokens else None
