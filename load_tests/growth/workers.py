"""Part `workers`: 1 to 4 gateway processes on the cores that there are, the null engine behind them."""

from __future__ import annotations

from measured_server import Job, MeasuredServer
from plan import Plan
from row import Row, make_row

# The kernel spreads connections over workers by a hash: with few of them a worker may get none.
_CHANNELS = 16
_KINDS: dict[str, Job] = {
    "one query a call": {"callers": 32, "tokens_a_text": 20, "input_type": "query", "distinct_calls": 1024},
    "8 texts of 512 tokens": {"callers": 16, "tokens_a_text": 512, "texts_a_call": 8, "distinct_calls": 64},
}


def run(plan: Plan, server_cores: set[int]) -> list[Row]:
    """Both kinds of call for each number of workers; server and client share all cores."""
    del server_cores
    rows = []
    for count in plan.workers:
        with MeasuredServer(plan.long_model, "null", workers=str(count)) as server:
            for series, job in _KINDS.items():
                measured = server.load(**job, channels=_CHANNELS, warm_calls=32, seconds=plan.seconds)
                busiest, total = max(measured["worker_cpu_s"]), sum(measured["worker_cpu_s"])
                rows.append(make_row(series, count, measured, busiest_share=busiest / total))
    return rows
