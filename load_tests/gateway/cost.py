"""The part `cost`: CPU time of a call in one gateway worker beside a bare echo of the same bytes, in turns."""

from __future__ import annotations

import statistics
import time

from closed_loop import call
from echo import Echo
from measurement import Measurement, Row, Tables, medians
from meter import Meter
from payloads import cut, make_payloads
from servers import answer_of, null_server, workers_of
from works import Work, usual_works

_WARM_S = 0.5


def run(plan: Measurement) -> Tables:
    """Measures every work at every count of callers."""
    rows: list[Row] = []
    with null_server(plan.model) as server:
        for work in usual_works():
            payloads = make_payloads(work.texts, work.texts_a_call)
            answer = answer_of(server.target, payloads[0])
            alone = {"tokenizer_ms": tokenizer_ms(work, plan.model)}
            for callers in plan.callers:
                call(server.target, payloads, callers, _WARM_S)
                turns = []
                for _ in range(plan.rounds):
                    echo_ms = _echo_ms(payloads, answer, callers, plan.seconds)
                    meter = Meter(workers_of(server))
                    loop = call(server.target, payloads, callers, plan.seconds)
                    ours = meter.ms_a_call(loop)
                    rate = loop["calls"] / loop["seconds"]
                    turns.append({"echo_ms": echo_ms, "worker_ms": ours, "times": ours / echo_ms, "calls_per_s": rate})
                rows.append({"work": work.name, "callers": callers, **medians(turns), **alone})
    return {"cost": rows}


def _echo_ms(payloads: list[bytes], answer: bytes, callers: int, seconds: float) -> float:
    with Echo(answer) as echo:
        call(echo.target, payloads, callers, _WARM_S)
        meter = Meter([echo.process])
        return meter.ms_a_call(call(echo.target, payloads, callers, seconds))


def tokenizer_ms(work: Work, model: str) -> float:
    """CPU milliseconds of the tokenizer alone for a call: the gateway's own class, in this process, everything warm."""
    from polarvec_server.config import load_settings
    from polarvec_server.models.folder import read_folder
    from polarvec_server.models.store import resolve
    from polarvec_server.pipeline.prompts import choose_prompt
    from polarvec_server.pipeline.tokenizer import Tokenizer
    from polarvec_server.pipeline.values import InputType, TextOptions, Truncation

    folder = read_folder(resolve(model, load_settings(model=model).models_dir))
    tokenizer = Tokenizer(folder.tokenizer_file, folder.max_tokens)
    kind = InputType.QUERY if work.texts_a_call == 1 else InputType.DOCUMENT
    options = TextOptions(kind, truncation=Truncation.END)
    prompt = choose_prompt(folder.prompts, options)
    calls = cut(work.texts, work.texts_a_call)
    rounds = []
    for _ in range(3):
        started = time.process_time()
        for texts in calls:
            tokenizer.tokenize(texts, prompt, options)
        rounds.append((time.process_time() - started) / len(calls) * 1e3)
    return statistics.median(rounds)
