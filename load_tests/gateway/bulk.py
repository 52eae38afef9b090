"""The part `bulk`: p99 of a question alone, and while documents saturate the real engine."""

from __future__ import annotations

import time

import grpc
from closed_loop import ClosedLoop, call
from measurement import Measurement, Tables, medians
from payloads import EMBED, make_payloads
from polarvec_proto.v1 import embedding_pb2 as pb
from servers import real_server
from works import answers, questions

_FLOOD_CALLERS = 16
_TEXTS_A_CALL = 8
# Until the documents fill the queue: their callers import grpc first.
_FILL_S = 1.5
_PACK_TOKENS = 1024


def run(plan: Measurement) -> Tables:
    """Measures both in turns, and what a pack of the documents takes at the rate that they reach meanwhile."""
    asked = make_payloads(questions(), 1)
    flood = make_payloads(answers(4 * _FLOOD_CALLERS * _TEXTS_A_CALL), _TEXTS_A_CALL)
    turns = []
    with real_server(plan.model) as server:
        call(server.target, asked, 1, min(2.0, plan.seconds))
        tokens_a_call = _count_tokens(server.target, flood) / len(flood)
        for _ in range(plan.rounds):
            alone = call(server.target, asked, 1, plan.seconds)["p99_ms"]
            with ClosedLoop(server.target, flood, _FLOOD_CALLERS, plan.seconds + _FILL_S + 0.5) as loop:
                time.sleep(_FILL_S)
                under = call(server.target, asked, 1, plan.seconds)["p99_ms"]
                done = loop.result()
            tokens_per_s = done["calls"] / done["seconds"] * tokens_a_call
            turns.append({"alone_p99_ms": alone, "bulk_p99_ms": under, "pack_ms": _PACK_TOKENS / tokens_per_s * 1e3})
    row = medians(turns)
    return {"bulk": [{**row, "packs_above": (row["bulk_p99_ms"] - row["alone_p99_ms"]) / row["pack_ms"]}]}


def _count_tokens(target: str, payloads: list[bytes]) -> int:
    """Embeds every call once, unmeasured, and adds up its tokens: the engine prepares each shape on its first pass."""
    with grpc.insecure_channel(target) as channel:
        embed = channel.unary_unary(EMBED, response_deserializer=pb.EmbedResponse.FromString)
        return sum(sum(embed(payload, timeout=60).token_counts) for payload in payloads)
