"""Thresholds: what a run must keep, written as `query.p99=1000 failures=0 goodput=10`, and what it did not keep."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

_LATENCIES = ("p50", "p95", "p99")
KEPT_UP = 0.95
"""A rate under saturation is answered to this share while it lasts: see `kept_up` in phase_rows.py."""
_FORM = re.compile(r"(?:(?P<kind>[\w-]+)\.)?(?P<what>p50|p95|p99|failures|goodput)=(?P<value>[\d.]+)")


@dataclass(frozen=True, slots=True)
class Limit:
    """One threshold; without a kind it holds for all calls together."""

    what: str
    """p50, p95, p99 (milliseconds, at most), failures (share, at most), goodput (calls a second, at least).

    A search adds kept_up (share, at least).
    """
    value: float
    kind: str | None = None

    def problem(self, phase: Mapping[str, Any]) -> str | None:
        """What is wrong with a phase of the report, in words."""
        if self.what == "kept_up":
            return self._lag(phase["kept_up"])
        name = self.kind or "all calls"
        row = phase["kinds"].get(self.kind) if self.kind else phase["total"]
        if row is None:  # A rare kind may not come in a short phase; a goodput that was asked for must.
            return f"there was no call of kind {self.kind}" if self.what == "goodput" else None
        if self.what == "failures":
            is_broken, text = row["failure_ratio"] > self.value, f"{row['failure_ratio']:.2%} of {name} failed"
        elif self.what == "goodput":
            is_broken, text = row["goodput"] < self.value, f"goodput of {name} is {row['goodput']:.1f}/s"
        else:
            measured = row[f"{self.what}_ms"]
            if measured is None:  # It falls on a call that failed, was dropped or had a wrong answer: infinitely late.
                return f"{self.what} of {name} is a call without a right answer" if row["offered"] else None
            is_broken, text = measured > self.value, f"{self.what} of {name} is {measured:,.0f} ms"
        side = "under" if self.what == "goodput" else "over"
        bound = f"{self.value:.2%}" if self.what == "failures" else f"{self.value:,.0f}"
        return f"{text}, {side} {bound}" if is_broken else None

    def _lag(self, kept_up: float | None) -> str | None:
        if kept_up is None or kept_up >= self.value:
            return None
        return f"answers kept up with {kept_up:.0%} of the calls only"


def parse_limits(text: str, kinds: Iterable[str]) -> list[Limit]:
    """Reads limits that are parted by spaces or commas.

    Raises:
        ValueError: One is malformed or names a kind that the workload does not have.
    """
    known, limits = set(kinds), []
    for part in re.split(r"[\s,]+", text.strip()):
        if not part:
            continue
        match = _FORM.fullmatch(part)
        if not match:
            raise ValueError(f"{part} is no limit; write [KIND.](p50|p95|p99|failures|goodput)=NUMBER: query.p99=1000")
        if match["kind"] and match["kind"] not in known:
            raise ValueError(f"{part}: the workload has no kind {match['kind']}; it has {', '.join(sorted(known))}")
        limits.append(Limit(match["what"], float(match["value"]), match["kind"]))
    return limits


def parse_slos(text: str, slo_ms: Mapping[str, float]) -> dict[str, float]:
    """The workload's latency limits with those in `text` (`query=300,documents=2000`) in their place.

    Raises:
        ValueError: A kind is not the workload's, or a number is none.
    """
    result = dict(slo_ms)
    for part in filter(None, re.split(r"[\s,]+", text)):
        kind, _, value = part.partition("=")
        if kind not in result:
            raise ValueError(f"{part}: the workload has no kind {kind}; it has {', '.join(result)}")
        result[kind] = float(value)
    return result


def search_limits(slo_ms: Mapping[str, float]) -> list[Limit]:
    """What a rate must keep to count as below saturation when nothing else is said.

    No failures and each kind's SLO; and, as a queue that grows can keep a wide SLO for a short step, that it does not.
    """
    slos = (Limit("p99", limit_ms, kind) for kind, limit_ms in slo_ms.items())
    return [Limit("failures", 0.0), Limit("kept_up", KEPT_UP), *slos]


def problems_of(phase: Mapping[str, Any], limits: Iterable[Limit]) -> list[str]:
    """What one phase broke."""
    return [problem for limit in limits if (problem := limit.problem(phase))]


def run_problems(phases: Iterable[Mapping[str, Any]], limits: Iterable[Limit]) -> list[str]:
    """What makes a run fail: a wrong vector anywhere, no answer at all, or a limit broken in a phase that is judged."""
    phases, limits = list(phases), list(limits)
    problems = []
    for phase in phases:
        if wrong := phase["total"]["wrong"]:
            problems.append(f"{phase['name']}: {wrong} answers were wrong")
        if phase["judged"]:
            problems += [f"{phase['name']}: {problem}" for problem in problems_of(phase, limits)]
    if phases and not any(phase["total"]["right"] for phase in phases):
        problems.append("no call was answered")
    return problems
