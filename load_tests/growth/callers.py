"""Part `callers`: 1 to 512 callers at once, one query a call, in a closed loop."""

from __future__ import annotations

from measured_server import MeasuredServer
from plan import Plan
from row import Row, make_row

_TOKENS = 20
_CHANNELS = 4
_CALLERS_A_SECOND = 250
# Half of it is for interactive calls: room for some 200 of these.
_SMALL_BUDGET = 8192


def run(plan: Plan, server_cores: set[int]) -> list[Row]:
    """The null engine, the engine, and the engine with a token budget so small that callers are refused."""
    servers = (
        ("null", "null", server_cores, {}),
        ("engine", "auto", set(), {}),
        (f"engine, budget of {_SMALL_BUDGET:,} tokens", "auto", set(), {"queue_tokens": str(_SMALL_BUDGET)}),
    )
    rows = []
    for series, engine, cores, settings in servers:
        with MeasuredServer(plan.model, engine, cores=cores, **settings) as server:
            # Below these the small budget changes nothing.
            few = _SMALL_BUDGET // 2 // _TOKENS // 4 if settings else 0
            rows += [_point(server, series, callers, plan) for callers in plan.callers if callers > few]
    return rows


def _point(server: MeasuredServer, series: str, callers: int, plan: Plan) -> Row:
    measured = server.load(
        callers=callers,
        channels=min(callers, _CHANNELS),
        tokens_a_text=_TOKENS,
        distinct_calls=1024,
        input_type="query",
        warm_calls=min(2 * callers, 64),
        # Every caller shall have an answer several times over.
        seconds=plan.seconds + callers / _CALLERS_A_SECOND,
    )
    refused = measured["refused"] / max(1.0, measured["refused"] + measured["calls"])
    return make_row(series, callers, measured, refused_share=refused)
