"""The playground's calls and its page: what it says is what the native API says, and nothing leaves the server."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import grpc
import numpy as np
import pytest
from conftest import running
from polarvec_proto.v1 import embedding_pb2 as pb
from polarvec_proto.v1 import embedding_pb2_grpc
from polarvec_server.edge.load_view import LoadView
from server_process import ServerProcess, free_port, wait_until

QUERIES = ["대한민국의 수도는 어디인가?", "한글을 만든 사람은 누구인가?"]
DOCUMENTS = ["한글은 세종대왕이 창제하였다.", "대한민국의 수도는 서울이다.", "김치는 배추로 담근다."]
KEY, OTHER_KEY = "a-key-for-every-model", "a-key-for-another-model"


@pytest.fixture(scope="module")
def locked_server(tiny_model: str, cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    keys = tmp_path_factory.mktemp("keys") / "keys"
    keys.write_text(f"everybody {KEY}\nnobody {OTHER_KEY} another-model\n")
    yield from running(
        ServerProcess(tiny_model, cache, precision="f32", workers=1, playground=True, api_keys_file=keys)
    )


@pytest.fixture
def stub(server: ServerProcess) -> Iterator[embedding_pb2_grpc.EmbeddingServiceStub]:
    with grpc.insecure_channel(server.target) as channel:
        yield embedding_pb2_grpc.EmbeddingServiceStub(channel)


def ask(server: ServerProcess, path: str, body: object = None, key: str = "") -> tuple[int, dict, dict]:
    """Status, headers and JSON of one call; bytes go as they are."""
    data = body if isinstance(body, bytes | None) else json.dumps(body).encode()
    headers = {"authorization": f"Bearer {key}"} if key else {}
    request = urllib.request.Request(f"http://127.0.0.1:{server.openai_port}{path}", data, headers)
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, dict(answer.headers), json.loads(answer.read())
    except urllib.error.HTTPError as error:
        with error:
            return error.code, dict(error.headers), json.loads(error.read())


def load_of(server: ServerProcess) -> dict:
    """A reading with everything in it that was answered before: workers count on twice a second."""
    asked = time.monotonic()
    wait_until(lambda: ask(server, "/playground/load")[2]["at_s"] > asked + 2, 10, "a fresh reading")
    return ask(server, "/playground/load")[2]


@pytest.mark.parametrize("path", ["/", "/playground/models", "/playground/load"])
def test_a_server_without_the_playground_has_none(tiny_server, path):
    assert ask(tiny_server, path)[0] == 404


def test_the_ready_line_names_the_page(server, tiny_server):
    assert f"playground http://127.0.0.1:{server.openai_port}/" in server.output
    assert "playground" not in tiny_server.output


def test_the_page_runs_and_calls_nothing_but_its_own(server):
    with urllib.request.urlopen(f"http://127.0.0.1:{server.openai_port}/", timeout=10) as answer:
        page, policy = answer.read().decode(), answer.headers["content-security-policy"]
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    for kind, tag in (("style-src", "style"), ("script-src", "script")):
        (source,) = re.findall(rf"(?s)<{tag}[^>]*>(.*?)</{tag}>", page)
        digest = base64.b64encode(hashlib.sha256(source.encode()).digest()).decode()
        assert rules.pop(kind) == f"'sha256-{digest}'"
    assert rules.pop("connect-src") == "'self'"
    assert rules.pop("img-src") == "data:"
    assert set(rules.values()) == {"'none'"}
    assert "default-src" in rules
    assert set(re.findall(r"https?://[^'\"\s]+", page)) <= {"http://www.w3.org/2000/svg"}


def test_rank_says_what_the_native_calls_say(server, stub):
    status, _, answer = ask(server, "/playground/rank", {"queries": QUERIES, "documents": DOCUMENTS})
    assert status == 200
    native = stub.Rank(pb.RankRequest(queries=QUERIES, documents=DOCUMENTS), timeout=60)
    for scores, ranking in zip(answer["scores"], native.rankings, strict=True):
        assert np.argsort(-np.array(scores), kind="stable").tolist() == list(ranking.document_indexes)
        np.testing.assert_allclose(sorted(scores, reverse=True), ranking.scores, atol=2e-6)
    assert answer["queries"]["token_counts"] == list(native.query_token_counts)
    assert answer["documents"]["token_counts"] == list(native.document_token_counts)
    assert (answer["queries"]["prompt"], answer["documents"]["prompt"]) == ("query: ", "passage: ")
    assert (answer["fingerprint"], answer["dimensions"]) == (native.fingerprint, 384)
    assert set(answer["timings_ms"]) == {"tokenize", "queue", "inference"}
    assert answer["timings_ms"]["inference"] > 0


@pytest.mark.parametrize("truncation", ["end", "start"])
def test_a_long_text_is_cut_on_request_and_both_counts_are_told(server, stub, truncation):
    long = "제주도의 기후는 한반도에서 가장 따뜻하다. " * 80
    body = {"queries": QUERIES, "documents": [long, "짧은 글"], "truncation": truncation, "dimensions": 64}
    _, _, answer = ask(server, "/playground/rank", body)
    native = stub.Tokenize(pb.TokenizeRequest(texts=[long], input_type=pb.INPUT_TYPE_DOCUMENT), timeout=60)
    assert answer["documents"]["full_token_counts"][0] == native.texts[0].token_count > 512
    assert answer["documents"]["token_counts"][0] == answer["max_token_count"] == 512
    assert answer["dimensions"] == 64


@pytest.mark.parametrize(
    ("body", "status", "reason", "field"),
    [
        (b"{", 400, "MALFORMED_MESSAGE", ""),
        (b"[]", 400, "MALFORMED_MESSAGE", ""),
        ({"queries": ["a"]}, 400, "NO_TEXTS", "documents"),
        ({"queries": "a", "documents": ["b"]}, 400, "INVALID_FIELD", "queries"),
        ({"queries": ["a"], "documents": ["b", 1]}, 400, "INVALID_FIELD", "documents"),
        ({"queries": ["a"], "documents": ["b", " "]}, 400, "EMPTY_TEXT", "documents[1]"),
        ({"queries": ["a", "긴 글 " * 400], "documents": ["b"]}, 400, "TEXT_TOO_LONG", "queries[1]"),
        (b'{"queries": ["a"], "documents": ["\\ud800"]}', 400, "INVALID_TEXT", "documents[0]"),
        ({"queries": ["a"], "documents": ["b"], "truncation": "middle"}, 400, "INVALID_FIELD", "truncation"),
        ({"queries": ["a"], "documents": ["b"], "truncation": []}, 400, "INVALID_FIELD", "truncation"),
        ({"queries": ["a"], "documents": ["b"], "dimensions": True}, 400, "INVALID_FIELD", "dimensions"),
        ({"queries": ["a"], "documents": ["b"], "dimensions": 7}, 400, "UNSUPPORTED_DIMENSIONS", "dimensions"),
        ({"queries": ["a"], "documents": ["b"], "model": 1}, 400, "INVALID_FIELD", "model"),
        ({"queries": ["a"], "documents": ["b"], "model": "none"}, 404, "UNKNOWN_MODEL", ""),
        ({"queries": ["a"] * 21, "documents": ["b"] * 1000}, 400, "TOO_MANY_TEXTS", "documents"),
        ({"queries": ["a"] * 1025, "documents": ["b"]}, 400, "TOO_MANY_TEXTS", "queries"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_cannot_be_ranked_is_refused_with_its_reason(server, body, status, reason, field):
    got, _, answer = ask(server, "/playground/rank", body)
    assert (got, answer["error"]["reason"], answer["error"]["field"]) == (status, reason, field)
    assert answer["error"]["message"]


def test_models_are_described_as_the_native_call_does(server, stub):
    (model,) = ask(server, "/playground/models")[2]["models"]
    native = stub.GetModel(pb.GetModelRequest(), timeout=30).model
    for name in ("id", "architecture", "dimensions", "max_token_count", "precision", "engine", "fingerprint"):
        assert model[name] == getattr(native, name), name


@pytest.mark.parametrize(("path", "body"), [("models", None), ("load", None), ("rank", {})])
def test_every_call_wants_the_key_and_the_page_none(locked_server, path, body):
    for key in ("", "some-other-key"):
        status, headers, answer = ask(locked_server, f"/playground/{path}", body, key)
        assert (status, answer["error"]["reason"]) == (401, "UNAUTHENTICATED")
        assert headers["www-authenticate"] == "Bearer"
    with urllib.request.urlopen(f"http://127.0.0.1:{locked_server.openai_port}/", timeout=10) as answer:
        assert answer.status == 200


def test_a_key_opens_its_own_models_only(locked_server):
    body = {"queries": ["a"], "documents": ["b"]}
    assert ask(locked_server, "/playground/rank", body, KEY)[0] == 200
    assert [model["id"] for model in ask(locked_server, "/playground/models", key=KEY)[2]["models"]] == ["tiny"]
    status, _, answer = ask(locked_server, "/playground/rank", body, OTHER_KEY)
    assert (status, answer["error"]["reason"]) == (403, "PERMISSION_DENIED")
    assert ask(locked_server, "/playground/models", key=OTHER_KEY)[2]["models"] == []


def test_the_load_counts_what_all_workers_did(server):
    before = load_of(server)
    texts = [f"{number}번째 글" for number in range(8)]
    for _ in range(6):
        # Each on a connection of its own, so that both workers take part.
        options = [("grpc.use_local_subchannel_pool", 1)]
        with grpc.insecure_channel(server.target, options=options) as channel:
            embed = embedding_pb2_grpc.EmbeddingServiceStub(channel).Embed
            tokens = sum(embed(pb.EmbedRequest(texts=texts, input_type=pb.INPUT_TYPE_RAW), timeout=60).token_counts)
    ask(server, "/playground/rank", {"queries": ["a"]})
    after = load_of(server)
    grown = {name: after[name] - before[name] for name in before if isinstance(before[name], float)}
    # The refused one counts as a failure; the readings themselves as nothing.
    assert (grown["requests"], grown["failed"]) == (7, 1)
    assert (grown["texts"], grown["tokens"]) == (48, 6 * tokens)
    # Triton computes canaries as well.
    assert grown["batched_packs"] >= grown["packs"] == 6
    assert 1 <= grown["batches"] <= grown["batched_packs"]
    assert after["latency"]["counts"][-1] - (before["latency"]["counts"] or [0])[-1] == 7
    assert (after["held_tokens"], after["in_flight_tokens"], after["encoder_up"]) == (0, 0, True)


def test_a_stream_counts_while_it_runs_and_stretches_no_latency(server, stub):
    before = load_of(server)
    one = pb.EmbedRequest(texts=["하나", "둘"], input_type=pb.INPUT_TYPE_DOCUMENT)

    def requests() -> Iterator[pb.EmbedStreamRequest]:
        yield pb.EmbedStreamRequest(item_number=1, request=one)
        # Still open: the load shows its texts before it ends.
        wait_until(lambda: ask(server, "/playground/load")[2]["texts"] == before["texts"] + 2, 20, "the stream counts")

    assert len(list(stub.EmbedStream(requests(), timeout=60))) == 1
    after = load_of(server)
    assert after["requests"] == before["requests"] + 1
    assert after["latency"] == before["latency"]


async def test_batches_are_unknown_where_tritons_metrics_are_not(tmp_path, monkeypatch):
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))
    for port in (0, free_port()):
        reading = await LoadView(port).read()
        assert (reading["batches"], reading["batched_packs"]) == (None, None)
        assert (reading["requests"], reading["latency"]) == (0, {"bounds_s": [], "counts": [0.0]})
