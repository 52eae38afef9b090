"""The part `workers`: one worker and two, where the gateway and not its callers is what works."""

from __future__ import annotations

from closed_loop import call
from measurement import Measurement, Row, Tables, medians
from meter import Meter
from payloads import make_payloads
from servers import null_server, processes_of, workers_of
from works import answers

_CALLERS = 16
_TEXTS_A_CALL = 32


def run(plan: Measurement) -> Tables:
    """Loads each count of workers with answers of the FAQ, 32 a call, each caller on a connection of its own."""
    payloads = make_payloads(answers(4 * _CALLERS * _TEXTS_A_CALL), _TEXTS_A_CALL)
    rows: list[Row] = []
    for count in (1, 2):
        turns = []
        with null_server(plan.model, count) as server:
            call(server.target, payloads, _CALLERS, 1.0, connections=_CALLERS)
            for _ in range(plan.rounds):
                meter, whole = Meter(workers_of(server)), Meter(processes_of(server))
                loop = call(server.target, payloads, _CALLERS, plan.seconds, connections=_CALLERS)
                turns.append(
                    {
                        "calls_per_s": loop["calls"] / loop["seconds"],
                        "worker_cores": meter.seconds / loop["seconds"],
                        "worker_ms": meter.ms_a_call(loop),
                        "all_ms": whole.ms_a_call(loop) + loop["cpu_s"] / loop["calls"] * 1e3,
                    }
                )
        rows.append({"workers": count, **medians(turns)})
    return {"workers": rows}
