"""Half of the part `profile`: where the time of one request goes, sent alone, by the server's own account."""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Sequence

import grpc
from echo import Echo
from measurement import Measurement, Row
from own_server import OwnServer
from payloads import EMBED, make_payloads
from servers import answer_of, null_server, real_server
from works import usual_works

_STAGES = ("tokenize", "queue", "inference")
# Until the engine knows the shapes and both ends are warm.
_WARM_CALLS = 30


def measure(plan: Measurement) -> list[Row]:
    """One text and 32, with the engine null and with the real one, one call at a time."""
    rows: list[Row] = []
    for engine, start in (("null", null_server), ("real", real_server)):
        with start(plan.model) as server:
            rows += [{"engine": engine, **row} for row in _rows(server, plan.single_calls)]
    return rows


def _rows(server: OwnServer, count: int) -> list[Row]:
    rows = []
    # The answers take the real engine a second a call, and the stages of the gateway are the same.
    for work in usual_works()[:2]:
        payloads = make_payloads(work.texts, work.texts_a_call)
        turns = _send(server.target, payloads, count, _STAGES)
        for turn in turns:
            turn["rest"] = turn["wall"] - sum(turn[stage] for stage in _STAGES)
        row = {f"{name}_ms": statistics.median(turn[name] for turn in turns) for name in turns[0]}
        with Echo(answer_of(server.target, payloads[0])) as echo:
            bare = _send(echo.target, payloads, count, ())
        rows.append({"work": work.name, **row, "echo_ms": statistics.median(turn["wall"] for turn in bare)})
    return rows


def _send(target: str, payloads: Sequence[bytes], count: int, stages: Sequence[str]) -> list[dict[str, float]]:
    """Sends calls one at a time; returns the wall clock of each and the times of stages in its trailing metadata."""
    turns = []
    with grpc.insecure_channel(target, options=[("grpc.max_receive_message_length", 64 << 20)]) as channel:
        embed = channel.unary_unary(EMBED)
        for number, payload in enumerate(itertools.islice(itertools.cycle(payloads), count + _WARM_CALLS)):
            started = time.perf_counter()
            _, call = embed.with_call(payload, timeout=60)
            wall_ms = (time.perf_counter() - started) * 1e3
            if number >= _WARM_CALLS:
                trailers = dict(call.trailing_metadata() or ())
                turns.append({"wall": wall_ms, **{stage: float(trailers[f"x-{stage}-ms"]) for stage in stages}})
    return turns
