"""Part `text-count`: 1 to 100,000 texts in one stream or one list."""

from __future__ import annotations

from measured_server import MeasuredServer
from plan import Plan
from row import Row, make_row

_TOKENS = 16


def run(plan: Plan, server_cores: set[int]) -> list[Row]:
    """One caller; a point is repeated until its time is over, because CPU time is counted in steps of 10 ms."""
    rows = []
    with MeasuredServer(plan.model, "null", cores=server_cores) as server:
        rows += [_point(server, "stream", "null, embed_stream", count, plan) for count in plan.counts]
        rows += [_point(server, "list", "null, embed_documents", count, plan) for count in plan.list_counts]
    with MeasuredServer(plan.model, "auto") as server:
        rows += [_point(server, "stream", "engine, embed_stream", count, plan) for count in plan.engine_counts]
    return rows


def _point(server: MeasuredServer, way: str, series: str, count: int, plan: Plan) -> Row:
    measured = server.load(
        way=way,
        texts_a_call=count,
        tokens_a_text=_TOKENS,
        distinct_calls=max(2, min(64, 2_000 // count)),
        # The first long stream makes the workers' memory grow to what it stays at.
        warm_calls=1 if count > 1_000 else 4,
        seconds=plan.seconds,
    )
    return make_row(series, count, measured)
