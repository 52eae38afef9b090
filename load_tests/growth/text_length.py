"""Part `text-length`: 16 to 8,192 tokens a text, with about the same tokens in every call."""

from __future__ import annotations

import functools
import time
from pathlib import Path

from measured_server import MeasuredServer
from plan import Plan
from row import Row, make_row
from tokenizers import Tokenizer

_CALL_TOKENS = 8192
_MOST_TEXTS = 128
_CALLERS = 3
_SAMPLE_TOKENS = 100_000
_ROUNDS = 4
# As in front of a GPU, where a request to Triton holds more than on a CPU.
GPU_PACKS = {"pack_tokens": "8192", "window_tokens": "32768"}


def run(plan: Plan, server_cores: set[int]) -> list[Row]:
    """The null engine with the packs of a CPU and of a GPU, then both models' engines."""
    rows = []
    nulls = (("null", plan.lengths, {}), ("null, packs of 8,192", plan.gpu_lengths, GPU_PACKS))
    for series, lengths, settings in nulls:
        with MeasuredServer(plan.long_model, "null", cores=server_cores, **settings) as server:
            for length in lengths:
                alone_ms = tokenizer_ms(server, length)
                rows.append(_point(server, series, length, plan, tokenizer_ms_a_text=alone_ms))
    for model in (plan.model, plan.long_model):
        with MeasuredServer(model, "auto") as server:
            readable = [length for length in plan.engine_lengths if length <= server.folder.max_tokens]
            rows += [_point(server, f"{server.folder.id} engine", length, plan) for length in readable]
    return rows


def _point(server: MeasuredServer, series: str, length: int, plan: Plan, **more: float) -> Row:
    size = max(1, min(_MOST_TEXTS, _CALL_TOKENS // length))
    measured = server.load(
        callers=_CALLERS,
        texts_a_call=size,
        tokens_a_text=length,
        distinct_calls=8,
        warm_calls=2,
        seconds=plan.seconds,
    )
    return make_row(series, length, measured, **more)


def tokenizer_ms(server: MeasuredServer, length: int) -> float:
    """CPU milliseconds of the tokenizer alone for one text, its cache of words as warm as the server's."""
    tokenizer = _tokenizer(server.folder.tokenizer_file)
    texts = server.texts(_SAMPLE_TOKENS // length, length)
    rounds = []
    for _ in range(_ROUNDS):
        started = time.process_time()
        tokenizer.encode_batch_fast(texts)
        rounds.append((time.process_time() - started) / len(texts) * 1e3)
    # The least: the first one meets words that it has not seen, and neighbours on the machine only add.
    return min(rounds)


@functools.cache
def _tokenizer(file: Path) -> Tokenizer:
    tokenizer = Tokenizer.from_file(str(file))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer
