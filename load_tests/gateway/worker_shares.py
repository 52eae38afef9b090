"""The part `shares`: one worker and two, each held to the same part of a core, so that both have cores to run on."""

from __future__ import annotations

import statistics
from contextlib import ExitStack

from closed_loop import call
from cpu_quota import CpuQuota
from measurement import Measurement, Row, Tables
from meter import Meter
from own_server import OwnServer
from payloads import make_payloads
from servers import null_server, workers_of
from works import answers, usual_works

# Small enough that callers, tritonserver and its Python process find the rest of two cores free.
_CORES_A_WORKER = 0.3
_CALLERS = 32
_TEXTS_A_CALL = 32


def run(plan: Measurement) -> Tables:
    """Loads both servers in turns, each caller on a connection of its own; `times` is calls/s beside one worker."""
    short = usual_works()[0]
    bulk = answers(4 * _CALLERS * _TEXTS_A_CALL)
    loads = {short.name: make_payloads(short.texts, 1), "32 answers of the FAQ": make_payloads(bulk, _TEXTS_A_CALL)}
    rows: list[Row] = []
    with ExitStack() as groups, ExitStack() as stack:
        servers = {count: stack.enter_context(null_server(plan.model, count)) for count in (1, 2)}
        for server in servers.values():
            # Outside of the servers' stack: a group can be removed when its process is gone.
            groups.enter_context(CpuQuota(workers_of(server), _CORES_A_WORKER))
        for name, payloads in loads.items():
            for server in servers.values():
                call(server.target, payloads, _CALLERS, 1.0, connections=_CALLERS)
            turns = [
                {count: _turn(server, payloads, plan) for count, server in servers.items()} for _ in range(plan.rounds)
            ]
            for count in servers:
                rates, cores = zip(*(turn[count] for turn in turns), strict=True)
                times = statistics.median(turn[count][0] / turn[1][0] for turn in turns)
                rate, used = statistics.median(rates), statistics.median(cores)
                rows.append({"work": name, "workers": count, "calls_per_s": rate, "worker_cores": used, "times": times})
    return {"shares": rows}


def _turn(server: OwnServer, payloads: list[bytes], plan: Measurement) -> tuple[float, float]:
    """Returns calls a second, and cores that the workers used."""
    meter = Meter(workers_of(server))
    loop = call(server.target, payloads, _CALLERS, plan.seconds, connections=_CALLERS)
    return loop["calls"] / loop["seconds"], meter.seconds / loop["seconds"]
