"""The part `bulk`: p99 of a question alone, and while documents saturate the real engine."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import grpc
from closed_loop import ClosedLoop, call
from measurement import Measurement, Row, Tables, medians
from own_server import OwnServer
from payloads import EMBED, make_payloads
from polarvec_proto.v1 import embedding_pb2 as pb
from servers import real_server
from works import answers, questions, usual_works

# Until the documents fill the queue: their callers import grpc first.
_FILL_S = 1.5
_PACK_TOKENS = 1024


@dataclass(frozen=True, slots=True)
class _Flood:
    """Documents without a pause."""

    texts: Sequence[str]
    texts_a_call: int
    callers: int


def run(plan: Measurement) -> Tables:
    """Measures a question alone and under each flood in turns."""
    asked = make_payloads(questions(), 1)
    rows: list[Row] = []
    with real_server(plan.model) as server:
        call(server.target, asked, 1, min(2.0, plan.seconds))
        for name, flood in _floods().items():
            rows.append({"bulk": name, "callers": flood.callers, **_measure(server, asked, flood, plan)})
    return {"bulk": rows}


def _floods() -> Mapping[str, _Flood]:
    """Long documents, whose packs are as large as packs get, and short ones: packs as small as a question's."""
    return {
        "8 answers of the FAQ": _Flood(answers(4 * 16 * 8), 8, 16),
        "8 short documents": _Flood(usual_works()[0].texts, 8, 64),
    }


def _measure(server: OwnServer, asked: list[bytes], flood: _Flood, plan: Measurement) -> Row:
    """Measures in turns, and what a pack of the documents takes at the rate that they reach meanwhile."""
    documents = make_payloads(flood.texts, flood.texts_a_call, documents=True)
    tokens_a_call = _count_tokens(server.target, documents) / len(documents)
    turns = []
    for _ in range(plan.rounds):
        alone = call(server.target, asked, 1, plan.seconds)["p99_ms"]
        with ClosedLoop(server.target, documents, flood.callers, plan.seconds + _FILL_S + 0.5) as loop:
            time.sleep(_FILL_S)
            under = call(server.target, asked, 1, plan.seconds)["p99_ms"]
            done = loop.result()
        tokens_per_s = done["calls"] / done["seconds"] * tokens_a_call
        pack_ms = _PACK_TOKENS / tokens_per_s * 1e3
        turns.append({"alone_p99_ms": alone, "bulk_p99_ms": under, "tokens_per_s": tokens_per_s, "pack_ms": pack_ms})
    row = medians(turns)
    return {**row, "packs_above": (row["bulk_p99_ms"] - row["alone_p99_ms"]) / row["pack_ms"]}


def _count_tokens(target: str, payloads: list[bytes]) -> int:
    """Embeds every call once, unmeasured, and adds up its tokens: the engine prepares each shape on its first pass."""
    with grpc.insecure_channel(target) as channel:
        embed = channel.unary_unary(EMBED, response_deserializer=pb.EmbedResponse.FromString)
        return sum(sum(embed(payload, timeout=60).token_counts) for payload in payloads)
