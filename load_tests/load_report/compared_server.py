"""Compares what the server spent and where: CPU for what it embedded, memory, stages, and the rate a search found."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from load_report.compared_calls import stretches
from load_report.compared_row import ComparedRow, bootstrapped, ratio_of, ratio_row

_MIN_TOKENS = 10_000
"""Fewer tell no CPU time: it is counted in hundredths of a second, and an idle server needs some, too."""
_STAGE_FLOOR_MS = 1.0
"""What a stage may take more: below, it is the scheduling of threads that is measured."""
_STAGE_TOLERANCE = 1.5
"""Times as much as of other numbers: nothing in a report tells the noise of a stage."""
_STAGE_SHARES = {"p50": 10, "p95": 40}
"""How many calls a percentile needs."""


def compare_cpu(
    reports: Sequence[Mapping[str, Any]],
    phases: Sequence[Mapping[str, Any]],
    tolerance: float,
    generator: np.random.Generator,
) -> ComparedRow | None:
    """CPU seconds per million tokens of right answers; None where there is too little of either."""
    blocks = [_cpu_blocks(report, phase) for report, phase in zip(reports, phases, strict=True)]
    if not all(of_run and sum(tokens for _, tokens in of_run) >= _MIN_TOKENS for of_run in blocks):
        return None
    values = [value for of_run in blocks if (value := _cpu_per_million(of_run)) is not None]
    if len(values) < 2:
        return None
    change = partial(ratio_of, more_is_better=False)
    interval = bootstrapped(blocks, _cpu_per_million, change, generator, paired=True)
    return ratio_row(f"{phases[0]['name']} CPU s/Mtokens", values, interval, tolerance)


def compare_stages(phases: Sequence[Mapping[str, Any]], tolerance: float) -> Iterator[ComparedRow]:
    """Where the time of calls went; see `_STAGE_FLOOR_MS` for what is not looked at."""
    for stage in [stage for stage in phases[0]["stages"] if stage in phases[1]["stages"]]:
        kind = stage.rsplit(" ", 1)[0]
        answers = min(phase["kinds"].get(kind, {}).get("right", 0) for phase in phases)
        for percent, needed in _STAGE_SHARES.items():
            values = [phase["stages"][stage].get(f"{percent}_ms") for phase in phases]
            if answers < needed or None in values:
                continue
            is_small = abs(values[1] - values[0]) < _STAGE_FLOOR_MS
            name = f"{phases[0]['name']} {stage.removesuffix('_ms')} {percent} ms"
            yield ratio_row(name, values, (1.0, 1.0) if is_small else None, _STAGE_TOLERANCE * tolerance)


def compare_memory(reports: Sequence[Mapping[str, Any]], tolerance: float) -> ComparedRow | None:
    """The largest sum over the server's processes; of the whole run, as what a phase took may stay."""
    peaks = [
        max((sum(row["rss_bytes"].values()) for row in report["server"] if row.get("rss_bytes")), default=0) / 2**20
        for report in reports
    ]
    return ratio_row("peak RSS MiB", peaks, None, tolerance) if all(peaks) else None


def compare_search(reports: Sequence[Mapping[str, Any]], tolerance: float) -> ComparedRow | None:
    """The highest rate that kept the limits; a search knows it to lie between two rates."""
    found = [report["search"] for report in reports]
    if not all(found):
        return None
    passed = [search["passed_rate"] or 0.0 for search in found]
    failed = [search["failed_rate"] or math.inf for search in found]
    if not any(passed):
        return None
    low = passed[0] / failed[1]
    high = failed[0] / passed[1] if passed[1] else math.inf
    # A rate that fell to none lies under the lowest that was tried, whatever the brackets are.
    interval = (low, high) if passed[1] else (math.inf, math.inf)
    return ratio_row("rate a search found /s", passed, interval, tolerance, more_is_better=True)


def _cpu_blocks(report: Mapping[str, Any], phase: Mapping[str, Any]) -> list[tuple[float, int]]:
    """CPU seconds, and tokens of right answers to calls that were due, by stretches of a phase.

    The last one reaches to the next phase: a call that is due at the end is worked for after it.
    """
    rows = [row for row in report["server"] if row.get("cpu_s")]
    if len(rows) < 2:
        return []
    times, spent_s = [row["t"] for row in rows], [sum(row["cpu_s"].values()) for row in rows]
    cut = stretches(phase)
    later = [other["start_s"] for other in report["phases"] if other["start_s"] > phase["start_s"]]
    edges = [stretch.start for stretch in cut] + [min(later, default=max(times[-1], cut[-1].stop))]
    cpu_s = np.diff(np.interp(edges, times, spent_s))
    tokens = [sum(row.get("tokens", 0) for row in report["seconds"] if row["t"] in stretch) for stretch in cut]
    return list(zip(map(float, cpu_s), tokens, strict=True))


def _cpu_per_million(blocks: Sequence[tuple[float, int]]) -> float | None:
    cpu_s, tokens = (sum(values) for values in zip(*blocks, strict=True))
    return 1e6 * cpu_s / tokens if tokens and cpu_s > 0 else None
