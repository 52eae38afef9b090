"""One phase of a run as numbers: what was offered, what came back, how fast and how good."""

from __future__ import annotations

import math
from typing import Any

from traffic.arrivals import Phase
from traffic.samples import COUNTS, Cell, Samples, mean, percentile

PERCENTILES = {"p50_ms": 0.5, "p95_ms": 0.95, "p99_ms": 0.99}
_EARLY = 4
"""The first of so many parts of a phase says what a call takes before a queue has grown."""


def phase_row(phase: Phase, start_s: int, samples: Samples, kinds: list[str]) -> dict[str, Any]:
    """The row of a phase that began at second `start_s` of the run."""
    end_s = start_s + math.ceil(phase.seconds)
    cells = {kind: samples.between(start_s, end_s, kind) for kind in kinds}
    stages = {
        f"{kind} {stage}": {name: _rounded(percentile(times, share)) for name, share in PERCENTILES.items()}
        for (number, kind, stage), times in sorted(samples.stages.items())
        if number == phase.number
    }
    return {
        "name": phase.name,
        "number": phase.number,
        "start_s": start_s,
        "seconds": phase.seconds,
        "rate": phase.rate,
        "end_rate": phase.end_rate,
        "judged": phase.judged,
        "total": _numbers(samples.between(start_s, end_s), phase.seconds),
        "kept_up": _kept_up(phase, start_s, samples),
        "kinds": {kind: _numbers(cell, phase.seconds) for kind, cell in cells.items() if cell.counts["offered"]},
        "stages": stages,
        "load_cpu_cores": round(samples.cpu_s[phase.number] / phase.seconds, 3),
        "errors": [
            {"kind": kind, "error": error, "count": count}
            for (number, kind, error), count in sorted(samples.errors.items())
            if number == phase.number
        ],
    }


def _numbers(cell: Cell, seconds: float) -> dict[str, Any]:
    counts = {name: cell.counts[name] for name in COUNTS}
    offered = counts["offered"]
    return {
        **counts,
        "offered_rate": round(offered / seconds, 3),
        # Right answers that came while the phase lasted: to its own calls, or to those that the phase before it left
        # open (see `Shape`: not where each phase stands for itself).
        "throughput": round(counts["finished"] / seconds, 3),
        # Calls of this phase that were answered rightly and in time.
        "goodput": round(counts["good"] / seconds, 3),
        "tokens_rate": round(counts["tokens"] / seconds, 1),
        "failure_ratio": round(1 - counts["right"] / offered, 6) if offered else 0.0,
        # Of all calls; null where it falls on one without a right answer.
        **{name: _rounded(percentile(cell.latencies, share, cell.unanswered)) for name, share in PERCENTILES.items()},
    }


def _kept_up(phase: Phase, start_s: int, samples: Samples) -> float | None:
    """Right answers before the phase was over, as a share of those that a server without a growing queue gives.

    By Little's law such a server leaves as many calls open at the end as come in the mean time that a call takes, here
    that of the calls due in the first quarter; they scatter as a Poisson number does, and one is always allowed. So
    neither slow answers nor a short phase count against a server, while one that serves `c` of `r` calls a second comes
    to about `c / r`, whatever latency is allowed. None: no calls.
    """
    whole = samples.between(start_s, start_s + math.ceil(phase.seconds))
    early = samples.between(start_s, start_s + max(1, int(phase.seconds / _EARLY)))
    offered = whole.counts["offered"]
    if not offered:
        return None
    call_s = (mean(early.latencies or whole.latencies) or 0.0) / 1000
    # Where a call takes longer than half a phase, nothing can be told from it, and it does not pass.
    open_count = offered * min(call_s / phase.seconds, 0.5)
    due = offered - max(1.0, open_count + math.sqrt(open_count))
    return round(min(1.0, whole.counts["ended_within"] / due), 4) if due > 0 else 1.0


def _rounded(milliseconds: float | None) -> float | None:
    return None if milliseconds is None else round(milliseconds, 2)
