"""The OpenAI door, through the real openai package: the same vectors as by gRPC, and OpenAI's own errors."""

import base64
import json
from http.client import HTTPConnection

import httpx
import numpy as np
import openai
import pytest
from polarvec import Client

TEXTS = ["대한민국의 수도는 서울이다.", "Seoul is the capital of South Korea.", "한글은 세종대왕이 창제하였다."]
LONG = "데비안 " * 1500


@pytest.fixture(scope="module")
def caller(server):
    with openai.OpenAI(base_url=server.openai_url, api_key="unused", max_retries=0) as caller:
        yield caller


@pytest.fixture(scope="module")
def http(server):
    with httpx.Client(base_url=server.openai_url, timeout=60) as http:
        yield http


def vectors(answer):
    return np.array([item.embedding for item in answer.data], np.float32)


@pytest.mark.parametrize("encoding_format", [openai.omit, "float", "base64"], ids=["default", "float", "base64"])
def test_vectors_are_those_of_the_sdk(caller, client, encoding_format):
    answer = caller.embeddings.create(model="e5-small", input=TEXTS, encoding_format=encoding_format)
    got = [item.embedding for item in answer.data]
    if encoding_format == "base64":
        got = [np.frombuffer(base64.b64decode(text), "<f4") for text in got]
    wanted = client.embed_detailed(TEXTS, input_type="document")
    # Batches of other calls decide the last bits.
    np.testing.assert_allclose(np.array(got, np.float32), wanted.embeddings, atol=1e-5)
    assert [item.index for item in answer.data] == [0, 1, 2]
    assert answer.usage.prompt_tokens == answer.usage.total_tokens == sum(wanted.token_counts)
    assert (answer.object, answer.model, answer.fingerprint) == ("list", "e5-small", wanted.fingerprint)


async def test_the_async_client_gets_the_same(server, caller):
    async with openai.AsyncOpenAI(base_url=server.openai_url, api_key="unused") as asynchronous:
        answer = await asynchronous.embeddings.create(model="e5-small", input=TEXTS)
    np.testing.assert_allclose(
        vectors(answer), vectors(caller.embeddings.create(model="e5-small", input=TEXTS)), atol=1e-5
    )


def test_a_suffix_or_a_field_says_what_the_texts_are_for(caller, client):
    text = "대한민국의 수도는 어디인가?"
    query, document = client.embed_queries(text), client.embed_documents(text)
    raw = client.embed(text, input_type="raw")
    assert abs(query @ document) < 0.999
    for model, body, wanted in (
        ("e5-small", {}, document),
        ("e5-small:document", {}, document),
        ("e5-small:query", {}, query),
        ("e5-small", {"input_type": "query"}, query),
        ("e5-small:query", {"input_type": "query"}, query),
        ("e5-small", {"input_type": "raw"}, raw),
    ):
        answer = caller.embeddings.create(model=model, input=text, extra_body=body)
        np.testing.assert_allclose(vectors(answer)[0], wanted, atol=1e-5, err_msg=f"{model} {body}")


def test_fewer_dimensions_have_unit_length(caller, client):
    answer = caller.embeddings.create(model="e5-small", input=TEXTS, dimensions=128)
    np.testing.assert_allclose(vectors(answer), client.embed_documents(TEXTS, dimensions=128), atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(vectors(answer), axis=1), 1, atol=1e-5)


@pytest.mark.parametrize("encoding", ["int8", "binary"])
def test_small_encodings_are_those_of_the_sdk(caller, client, encoding):
    answer = caller.embeddings.create(model="e5-small", input=TEXTS, encoding_format=encoding)
    rows = [base64.b64decode(item.embedding) for item in answer.data]
    wanted = client.embed_documents(TEXTS)
    if encoding == "int8":
        scales = np.array([item.scale for item in answer.data], np.float32)[:, None]
        got = np.array([np.frombuffer(row, np.int8) for row in rows]) * scales
        np.testing.assert_allclose(got, wanted, atol=scales.max())
    else:
        bits = np.unpackbits([np.frombuffer(row, np.uint8) for row in rows], axis=1)
        # A number close to zero may have either sign in another batch.
        sure = np.abs(wanted) > 1e-4
        assert ((bits == 1) == (wanted > 0))[sure].all()


def test_token_ids_are_embedded_as_they_are(caller, client):
    counted = client.tokenize(TEXTS, input_type="document", include_ids=True)
    ids = [list(item.token_ids) for item in counted]
    wanted = client.embed_documents(TEXTS)
    np.testing.assert_allclose(vectors(caller.embeddings.create(model="e5-small", input=ids)), wanted, atol=1e-5)
    one = caller.embeddings.create(model="e5-small", input=ids[0])
    np.testing.assert_allclose(vectors(one), wanted[:1], atol=1e-5)
    assert one.usage.prompt_tokens == len(ids[0])


def test_token_ids_of_another_model_are_refused_with_the_remedy(caller, client):
    (counted,) = client.tokenize([TEXTS[0]], input_type="document", include_ids=True)
    own = list(counted.token_ids)
    # What tiktoken's cl100k_base makes of "hello world"; without special tokens; out of range; nothing but a start.
    for ids in ([15339, 1917], own[1:-1], [*own[:-1], 10**6, own[-1]], [own[0], -1, own[-1]], own[:1]):
        with pytest.raises(openai.BadRequestError) as caught:
            caller.embeddings.create(model="e5-small", input=[own, ids])
        assert "check_embedding_ctx_length=False" in caught.value.body["message"]
        assert caught.value.body["param"] == "input[1]"


def test_too_long_is_refused_or_cut_as_asked(caller):
    with pytest.raises(openai.BadRequestError) as caught:
        caller.embeddings.create(model="e5-small", input=["짧다", LONG])
    assert caught.value.body["code"] == "text_too_long" and caught.value.body["param"] == "input[1]"
    assert "the limit is 512" in caught.value.body["message"]
    for truncation in ("end", "start"):
        answer = caller.embeddings.create(model="e5-small", input=LONG, extra_body={"truncation": truncation})
        assert answer.usage.prompt_tokens == 512


def test_models_are_listed_with_and_without_suffix(caller):
    names = [model.id for model in caller.models.list().data]
    assert names == ["e5-small", "e5-small:query", "e5-small:document"]
    for name in names:
        found = caller.models.retrieve(name)
        assert (found.id, found.object, found.dimensions, found.max_tokens) == (name, "model", 384, 512)
    with pytest.raises(openai.NotFoundError) as caught:
        caller.models.retrieve("e5-small:summary")
    assert caught.value.body["code"] == "model_not_found"


BAD = {
    "no model": ({"input": "a"}, 400, "model", "model"),
    "empty model": ({"model": "", "input": "a"}, 400, "model", "GET /v1/models"),
    "model is a number": ({"model": 1, "input": "a"}, 400, "model", "string"),
    "unknown model": ({"model": "gpt-9", "input": "a"}, 404, None, "e5-small"),
    "unknown suffix": ({"model": "e5-small:x", "input": "a"}, 404, None, "e5-small"),
    "no input": ({"model": "e5-small"}, 400, "input", "required"),
    "input is a number": ({"model": "e5-small", "input": 1}, 400, "input", "must be"),
    "input is an object": ({"model": "e5-small", "input": {"a": 1}}, 400, "input", "must be"),
    "empty list": ({"model": "e5-small", "input": []}, 400, "input", "empty"),
    "empty text": ({"model": "e5-small", "input": ["a", " "]}, 400, "input[1]", "empty"),
    "no token ids": ({"model": "e5-small", "input": [[]]}, 400, "input[0]", "empty"),
    "mixed": ({"model": "e5-small", "input": ["a", 1]}, 400, "input[1]", "neither"),
    "list of null": ({"model": "e5-small", "input": [None]}, 400, "input[0]", "neither"),
    "broken token ids": ({"model": "e5-small", "input": [[0, 1.5, 2]]}, 400, "input[0]", "whole numbers"),
    "booleans": ({"model": "e5-small", "input": [[True]]}, 400, "input[0]", "whole numbers"),
    "half a surrogate pair": (b'{"model": "e5-small", "input": ["a", "\\ud800"]}', 400, "input[1]", "surrogate"),
    "dimensions 7": ({"model": "e5-small", "input": "a", "dimensions": 7}, 400, "dimensions", "multiple of 8"),
    "dimensions as text": ({"model": "e5-small", "input": "a", "dimensions": "8"}, 400, "dimensions", "whole"),
    "unknown format": ({"model": "e5-small", "input": "a", "encoding_format": "hex"}, 400, "encoding_format", "base64"),
    "unknown input type": ({"model": "e5-small", "input": "a", "input_type": "x"}, 400, "input_type", "query"),
    "contradiction": ({"model": "e5-small:query", "input": "a", "input_type": "raw"}, 400, "input_type", "suffix"),
    "unknown truncation": ({"model": "e5-small", "input": "a", "truncation": True}, 400, "truncation", "refuse"),
    "too many texts": ({"model": "e5-small", "input": ["a"] * 1025}, 400, "input", "1024"),
    "no JSON": (b"hello", 400, None, "valid JSON"),
    "cut JSON": (b'{"model": "e5-small", "inp', 400, None, "valid JSON"),
    "not UTF-8": (b'{"model": "e5-small", "input": "\xff"}', 400, None, "valid JSON"),
    "empty body": (b"", 400, None, "valid JSON"),
    "a list": (b"[]", 400, None, "JSON object"),
    "deep": (b"[" * 100_000, 400, None, "valid JSON"),
    "long number": (b'{"input": [' + b"1" * 5000 + b"]}", 400, None, "valid JSON"),
    "twice": (b'{"model": "e5-small", "input": "a", "input": "b"}', 400, None, "twice"),
    "UTF-16": (json.dumps({"model": "e5-small", "input": "a"}).encode("utf-16"), 400, None, "valid JSON"),
    "too many values": (b'{"x": [' + b"[]," * 600_000 + b"1]}", 400, None, "values"),
    "NaN": (b'{"model": "e5-small", "input": "a", "dimensions": NaN}', 400, None, "NaN"),
}  # fmt: skip


@pytest.mark.parametrize(("body", "status", "param", "words"), BAD.values(), ids=BAD)
def test_bad_requests_are_refused_as_openai_does(http, body, status, param, words):
    sent = {"content": body} if isinstance(body, bytes) else {"json": body}
    answer = http.post("/embeddings", **sent)
    assert answer.status_code == status
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["type"] == "invalid_request_error" and error["param"] == param
    assert words in error["message"]
    assert answer.headers["x-should-retry"] == "false" and answer.headers["x-request-id"]
    assert not any(word in error["message"].lower() for word in ("triton", "python", "traceback", "exception"))


def test_fields_that_are_unknown_or_null_are_ignored(http):
    body = {"model": "e5-small", "input": "a", "user": "u", "dimensions": None, "encoding_format": None, "seed": [1]}
    assert len(http.post("/embeddings", json=body).json()["data"][0]["embedding"]) == 384


@pytest.mark.parametrize("declared", [True, False], ids=["content-length", "chunked"])
def test_a_body_over_the_limit_is_413(http, declared):
    body = b'{"model": "e5-small", "input": "' + b"x" * (17 << 20) + b'"}'
    answer = http.post("/embeddings", content=body if declared else iter([body[: 1 << 20], body[1 << 20 :]]))
    assert answer.status_code == 413
    assert answer.json()["error"]["code"] == "request_too_large"


def test_an_absurd_body_is_not_even_read(server):
    connection = HTTPConnection("127.0.0.1", server.openai_port, timeout=30)
    connection.putrequest("POST", "/v1/embeddings")
    connection.putheader("Content-Length", str(1 << 40))
    connection.endheaders()
    assert connection.getresponse().status == 413
    connection.close()


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/embeddings"), ("POST", "/chat/completions"), ("GET", "/x"), ("POST", "/embeddings/")],
)
def test_other_paths_and_methods_are_refused_in_the_same_form(http, method, path):
    answer = http.request(method, path)
    assert answer.status_code in (404, 405)
    assert answer.json()["error"]["code"] == "unknown_url"


def test_answers_carry_an_id_and_where_the_time_went(http, server):
    body = {"model": "e5-small", "input": TEXTS}
    given = http.post("/embeddings", json=body, headers={"x-request-id": "mine-1"})
    assert given.headers["x-request-id"] == "mine-1"
    for stage in ("queue", "tokenize", "inference"):
        assert float(given.headers[f"x-{stage}-ms"]) >= 0
    assert float(given.headers["x-inference-ms"]) > 0
    made = http.post("/embeddings", json=body, headers={"x-request-id": "no good\tid"}).headers["x-request-id"]
    assert len(made) == 16
    assert "x-inference-ms" not in http.get("/models").headers


def test_calls_are_counted_beside_those_of_grpc(http, server):
    label = '{code="OK",method="POST /v1/embeddings"}'
    calls, texts = server.counted(f"polarvec_requests_total{label}"), server.metric("polarvec_texts_total")
    http.post("/embeddings", json={"model": "e5-small", "input": TEXTS})
    assert server.counted(f"polarvec_requests_total{label}") == calls + 1
    assert server.metric("polarvec_texts_total") >= texts + 3


def test_many_vectors_as_numbers_do_not_stop_the_others(http, client, server):
    answer = http.post("/embeddings", json={"model": "e5-small", "input": ["짧은 글"] * 256}).json()
    assert [item["index"] for item in answer["data"]] == list(range(256))
    np.testing.assert_allclose(answer["data"][255]["embedding"], client.embed_documents("짧은 글"), atol=1e-5)


def test_a_refused_call_writes_its_reason_and_trace_but_no_text(http, server):
    trace = "4bf92f3577b34da6a3ce929d0e0e4736"
    headers = {"traceparent": f"00-{trace}-00f067aa0ba902b7-01"}
    http.post("/embeddings", json={"model": "e5-small", "input": ["비밀 문장", ""]}, headers=headers)
    with Client(server.target) as client:
        client.embed_queries("그 다음")
    line = next(line for line in reversed(server.lines) if trace in line)
    assert "EMPTY_TEXT" in line and "POST /v1/embeddings" in line
    assert "비밀" not in server.output and "\\ube44\\ubc00" not in server.output
