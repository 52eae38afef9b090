"""What embed_queries, embed_documents, embed and embed_detailed give and send."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest
from polarvec import Int8Embeddings, InvalidRequest, ServerError, TruncatedText
from polarvec_proto.v1 import embedding_pb2 as pb
from unit.scripted_server import DIMENSIONS, RunningServer, vector

TEXTS = [f"문서 {number}" for number in range(10)]


@pytest.mark.parametrize(
    ("method", "options", "expected"),
    [
        ("embed_queries", {}, pb.INPUT_TYPE_QUERY),
        ("embed_documents", {}, pb.INPUT_TYPE_DOCUMENT),
        ("embed", {"input_type": "raw"}, pb.INPUT_TYPE_RAW),
        ("embed", {"input_type": "query"}, pb.INPUT_TYPE_QUERY),
    ],
)
def test_method_decides_the_input_type(
    client: Any, scripted: RunningServer, method: str, options: dict[str, str], expected: int
) -> None:
    embeddings = getattr(client, method)(TEXTS, **options)
    assert scripted.servicer.seen[-1].request.input_type == expected
    np.testing.assert_array_equal(embeddings, np.stack([vector(text) for text in TEXTS]))
    assert embeddings.dtype == np.float32
    assert embeddings.flags.writeable


def test_str_gives_one_vector_without_asking_for_the_limits(client: Any, scripted: RunningServer) -> None:
    embedding = client.embed_queries("서울")
    assert embedding.shape == (DIMENSIONS,)
    np.testing.assert_array_equal(embedding, vector("서울"))
    assert scripted.servicer.count("GetModel") == 0


def test_list_of_one_gives_a_matrix(client: Any) -> None:
    assert client.embed_queries(["서울"]).shape == (1, DIMENSIONS)


def test_options_arrive(client: Any, scripted: RunningServer) -> None:
    client.embed_documents(
        "a",
        model="tiny",
        prompt_text="p: ",
        dimensions=8,
        truncation="start",
        unnormalized=True,
        encoding="float16",
        priority="interactive",
    )
    assert scripted.servicer.seen[-1].request == pb.EmbedRequest(
        model="tiny",
        texts=["a"],
        input_type=pb.INPUT_TYPE_DOCUMENT,
        prompt_text="p: ",
        dimensions=8,
        truncation=pb.TRUNCATION_START,
        unnormalized=True,
        encoding=pb.ENCODING_FLOAT16,
        priority=pb.PRIORITY_INTERACTIVE,
    )


def test_prompt_name_arrives_even_if_empty(client: Any, scripted: RunningServer) -> None:
    client.embed_documents("a", prompt_name="")
    assert scripted.servicer.seen[-1].request.WhichOneof("prompt") == "prompt_name"


@pytest.mark.parametrize(
    ("encoding", "tolerance", "dtype"), [("float32", 0.0, np.float32), ("float16", 1e-3, np.float16)]
)
def test_float_encodings(client: Any, encoding: str, tolerance: float, dtype: type) -> None:
    embeddings = client.embed_documents(TEXTS, encoding=encoding)
    assert embeddings.dtype == dtype
    np.testing.assert_allclose(embeddings, np.stack([vector(text) for text in TEXTS]), atol=tolerance)


def test_int8_comes_with_scales(client: Any) -> None:
    embeddings = client.embed_documents(TEXTS, encoding="int8")
    assert isinstance(embeddings, Int8Embeddings)
    assert (embeddings.values.shape, embeddings.scales.shape, len(embeddings)) == ((10, DIMENSIONS), (10,), 10)
    np.testing.assert_allclose(embeddings.to_float32(), np.stack([vector(text) for text in TEXTS]), atol=5e-3)
    single = client.embed_documents(TEXTS[0], encoding="int8")
    assert (single.values.shape, single.scales.shape) == ((DIMENSIONS,), ())
    np.testing.assert_allclose(single.to_float32(), vector(TEXTS[0]), atol=5e-3)


def test_binary_is_packed_sign_bits(client: Any) -> None:
    embeddings = client.embed_documents(TEXTS, encoding="binary")
    assert (embeddings.shape, embeddings.dtype) == ((10, DIMENSIONS // 8), np.uint8)
    expected = np.stack([vector(text) > 0 for text in TEXTS])
    np.testing.assert_array_equal(np.unpackbits(embeddings, axis=1), expected)


def test_embed_detailed_keeps_what_the_server_said(client: Any, scripted: RunningServer) -> None:
    scripted.servicer.limits.max_text_count = 4
    texts = [*TEXTS[:5], "x" * 70]
    result = client.embed_detailed(texts, input_type="document", truncation="end")
    assert result.embeddings.shape == (6, DIMENSIONS)
    assert (result.model, result.fingerprint, result.dimensions, result.encoding) == ("tiny", "f1", 16, "float32")
    assert result.token_counts == (4, 4, 4, 4, 4, 64)
    assert result.truncated == (TruncatedText(index=5, token_count=70),)
    assert [(call.queue_ms, call.tokenize_ms, call.inference_ms) for call in result.calls] == [(1.5, 0.25, 7.0)] * 2
    assert all(call.request_id for call in result.calls)


def test_parts_of_different_embedding_spaces_are_refused(client: Any, scripted: RunningServer) -> None:
    scripted.servicer.limits.max_text_count = 5

    fingerprints = iter(["f1", "f2"])

    def change(response: pb.EmbedResponse) -> None:
        response.fingerprint = next(fingerprints)

    scripted.servicer.change = change
    with pytest.raises(ServerError, match="model changed"):
        client.embed_documents(TEXTS)


@pytest.mark.parametrize(
    ("field", "value", "complaint"),
    [
        ("embeddings", b"1234", "4 bytes where 1 vectors of 16 dimensions in float32 take 64"),
        ("dimensions", 0, "64 bytes where 1 vectors of 0"),
        ("encoding", 99, "encoding 99"),
        ("token_counts", [], "0 of 1 texts"),
    ],
)
def test_malformed_answer_is_a_server_error(
    client: Any, scripted: RunningServer, field: str, value: Any, complaint: str
) -> None:
    def change(response: pb.EmbedResponse) -> None:
        response.ClearField(field)  # type: ignore[arg-type]
        if isinstance(value, list):
            return
        setattr(response, field, value)

    scripted.servicer.change = change
    with pytest.raises(ServerError, match=complaint):
        client.embed_queries("a")


@pytest.mark.parametrize(
    ("texts", "options", "error", "complaint"),
    [
        (["a", 3], {}, TypeError, r"texts\[1\] is of type int"),
        (["a", None], {}, TypeError, r"texts\[1\] is of type NoneType"),
        (b"bytes", {}, TypeError, "texts is of type bytes"),
        (5, {}, TypeError, "texts is of type int"),
        ([], {}, InvalidRequest, "texts is empty"),
        (["a", "b\ud800"], {}, InvalidRequest, r"texts\[1\] has a lone surrogate at character 1"),
        ("\udfff", {}, InvalidRequest, r"texts\[0\] has a lone surrogate at character 0"),
        ("a", {"prompt_text": "\ud800"}, InvalidRequest, "prompt_text has a lone surrogate"),
        ("a", {"prompt_text": "x", "prompt_name": "y"}, InvalidRequest, "not both"),
        ("a", {"encoding": "float64"}, InvalidRequest, 'encoding is .*"float32", "float16"'),
        ("a", {"truncation": "middle"}, InvalidRequest, "truncation"),
        ("a", {"priority": "high"}, InvalidRequest, "priority"),
        ("a", {"dimensions": -1}, InvalidRequest, "dimensions is -1"),
        ("a", {"dimensions": 2**31}, InvalidRequest, "dimensions is"),
        ("a", {"timeout_s": 0}, InvalidRequest, "timeout_s is 0"),
        ("a", {"timeout_s": float("nan")}, InvalidRequest, "timeout_s is nan"),
        ("a", {"normalize": True}, TypeError, "normalize"),
        ("a", {"model": None}, TypeError, "model is of type NoneType"),
        ("a", {"prompt_text": b"x"}, TypeError, "prompt_text is of type bytes"),
    ],
)
def test_wrong_argument_is_refused_before_anything_is_sent(
    client: Any, scripted: RunningServer, texts: Any, options: dict[str, Any], error: type[Exception], complaint: str
) -> None:
    with pytest.raises(error, match=complaint) as caught:
        client.embed_documents(texts, **options)
    assert scripted.servicer.count("Embed") == 0
    assert caught.value.__cause__ is None  # A UnicodeEncodeError would hold the user's text.


def test_reasons_of_local_errors_are_the_servers(client: Any) -> None:
    with pytest.raises(InvalidRequest) as no_texts:
        client.embed_documents([])
    with pytest.raises(InvalidRequest) as surrogate:
        client.embed_documents(["a", "\ud800"])
    assert no_texts.value.reason == "NO_TEXTS"
    assert (surrogate.value.reason, surrogate.value.field) == ("INVALID_TEXT", "texts[1]")


def test_unknown_input_type_is_refused(client: Any) -> None:
    with pytest.raises(InvalidRequest, match='"query", "document", "raw"') as caught:
        client.embed("a", input_type="passage")
    assert caught.value.reason == "UNKNOWN_INPUT_TYPE"


def test_deadline_is_passed_on_to_the_server(client: Any, scripted: RunningServer) -> None:
    client.embed_queries("a", timeout_s=3)
    client.embed_queries("a")
    own, default = (call.remaining_s for call in scripted.servicer.seen)
    assert 2 < own <= 3.1
    assert 9 < default <= 10.1


def test_call_ends_at_its_deadline(client: Any, scripted: RunningServer) -> None:
    from polarvec import DeadlineExceeded

    scripted.servicer.delay_s = 5
    started = time.monotonic()
    with pytest.raises(DeadlineExceeded, match="timeout_s"):
        client.embed_queries("a", timeout_s=0.3)
    assert time.monotonic() - started < 2


def test_user_agent_and_key_arrive(make_client: Any, scripted: RunningServer) -> None:
    client = make_client(scripted.target, api_key="secret")
    client.embed_queries("a")
    metadata = scripted.servicer.seen[-1].metadata
    assert metadata["authorization"] == "Bearer secret"
    assert metadata["user-agent"].startswith("polarvec-python/")
