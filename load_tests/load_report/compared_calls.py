"""Compares the calls of a phase: latencies, the share that was not good, throughput; with the noise of both runs."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from traffic.samples import percentile

from load_report.compared_row import ComparedRow, bootstrapped, points_verdict, ratio_of, ratio_row

# Seconds that stand together in the bootstrap: a queue makes neighbouring seconds alike.
_BLOCK_S = 3
_SHARES = {"p50": (0.5, 10), "p95": (0.95, 40), "p99": (0.99, 100)}
"""Of a percentile its share, and how many calls it needs."""
_MIN_CALLS = 40
"""Fewer tell no throughput."""
_WILSON_Z = 2.576
"""99 % of a normal distribution."""
POINTS = 1.0
"""Percentage points of calls that may be bad without being worse."""


@dataclass(frozen=True, slots=True)
class Block:
    """The calls that were due in a stretch of some seconds."""

    latencies: Counter[int]
    """Of right answers."""
    offered: int
    good: int
    finished: int
    """Right answers that came in the stretch."""


def compare_calls(
    reports: Sequence[Mapping[str, Any]],
    phases: Sequence[Mapping[str, Any]],
    tolerance: float,
    generator: np.random.Generator,
) -> Iterator[ComparedRow]:
    """The rows of a phase that both reports have."""
    name = phases[0]["name"]
    pairs = list(zip(reports, phases, strict=True))
    for kind in [kind for kind in phases[0]["kinds"] if kind in phases[1]["kinds"]]:
        blocks = [_blocks(report, phase, kind) for report, phase in pairs]
        calls = min(phase["kinds"][kind]["offered"] for phase in phases)
        for percent, (share, needed) in _SHARES.items():
            if calls >= needed:
                yield _latency_row(f"{name} {kind} {percent} ms", blocks, share, tolerance, generator)
        yield _bad_row(f"{name} {kind} bad %", blocks, tolerance, generator)
    if min(phase["total"]["offered"] for phase in phases) >= _MIN_CALLS:
        blocks = [_blocks(report, phase, None) for report, phase in pairs]
        yield _throughput_row(f"{name} calls/s", blocks, phases, tolerance, generator)


def _latency_row(
    name: str, blocks: list[list[Block]], share: float, tolerance: float, generator: np.random.Generator
) -> ComparedRow:
    measure = partial(_percentile, share)
    change = partial(ratio_of, more_is_better=False)
    interval = bootstrapped(blocks, measure, change, generator)
    return ratio_row(name, [measure(of_run) for of_run in blocks], interval, tolerance)


def _percentile(share: float, blocks: Sequence[Block]) -> float:
    """Milliseconds of all calls, of which one without a right answer takes for ever."""
    latencies: Counter[int] = Counter()
    for block in blocks:
        latencies.update(block.latencies)
    answered = sum(latencies.values())
    offered = max(answered, sum(block.offered for block in blocks))
    if not answered or share * offered > answered:
        return math.inf
    return percentile(latencies, share * offered / answered) or math.inf


def _bad_row(name: str, blocks: list[list[Block]], tolerance: float, generator: np.random.Generator) -> ComparedRow:
    """In points: of a good share, or of a bad one of nearly nothing, a ratio says little."""
    first, second = (_bad_percent(of_run) or 0.0 for of_run in blocks)
    drawn = bootstrapped(blocks, _bad_percent, lambda values: values[1] - values[0], generator)
    counted = _counting_interval(blocks)
    low, high = min(drawn[0], counted[0]), max(drawn[1], counted[1])
    # Of an overloaded phase, whose bad share is large, it is a share of that.
    verdict = points_verdict(low, high, max(POINTS, first * tolerance))
    same = first == second == 0
    return ComparedRow(name, first, second, second - first, low, high, "same" if same else verdict, in_points=True)


def _bad_percent(blocks: Sequence[Block]) -> float | None:
    """What was late, wrong, failed or dropped, of what was offered: the arrivals of one seed are no noise."""
    offered = sum(block.offered for block in blocks)
    return 100 * (1 - sum(block.good for block in blocks) / offered) if offered else None


def _counting_interval(blocks: list[list[Block]]) -> tuple[float, float]:
    """Of the difference of two shares in points, by their counts alone: Newcombe 1998, method 10."""
    (p1, low1, high1), (p2, low2, high2) = (_wilson(of_run) for of_run in blocks)
    low = p2 - p1 - math.hypot(p2 - low2, high1 - p1)
    high = p2 - p1 + math.hypot(high2 - p2, p1 - low1)
    return 100 * low, 100 * high


def _wilson(blocks: Sequence[Block]) -> tuple[float, float, float]:
    count = max(1, sum(block.offered for block in blocks))
    share = (_bad_percent(blocks) or 0.0) / 100
    squared = _WILSON_Z**2
    middle = share + squared / (2 * count)
    reach = _WILSON_Z * math.sqrt(share * (1 - share) / count + squared / (4 * count**2))
    return share, (middle - reach) / (1 + squared / count), (middle + reach) / (1 + squared / count)


def _throughput_row(
    name: str,
    blocks: list[list[Block]],
    phases: Sequence[Mapping[str, Any]],
    tolerance: float,
    generator: np.random.Generator,
) -> ComparedRow:
    change = partial(ratio_of, more_is_better=True)
    interval = bootstrapped(blocks, _finished_share, change, generator, paired=True)
    values = [phase["total"]["throughput"] for phase in phases]
    return ratio_row(name, values, interval, tolerance, more_is_better=True)


def _finished_share(blocks: Sequence[Block]) -> float | None:
    offered = sum(block.offered for block in blocks)
    return sum(block.finished for block in blocks) / offered if offered else None


def _blocks(report: Mapping[str, Any], phase: Mapping[str, Any], kind: str | None) -> list[Block]:
    """The phase cut into stretches of some seconds; at least four, so that there is something to draw from."""
    return [
        _block([row for row in report["seconds"] if row["t"] in stretch and kind in (row["kind"], None)])
        for stretch in stretches(phase)
    ]


def _block(rows: Sequence[Mapping[str, Any]]) -> Block:
    latencies: Counter[int] = Counter()
    for row in rows:
        latencies.update(dict(map(tuple, row["latencies"])))
    counts = (sum(row.get(name, 0) for row in rows) for name in ("offered", "good", "finished"))
    return Block(latencies, *counts)


def stretches(phase: Mapping[str, Any]) -> list[range]:
    """The seconds of a phase, in stretches."""
    end_s = phase["start_s"] + math.ceil(phase["seconds"])
    step = max(1, min(_BLOCK_S, (end_s - phase["start_s"]) // 4))
    return [range(start, min(start + step, end_s)) for start in range(phase["start_s"], end_s, step)]
