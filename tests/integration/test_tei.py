"""tei.v1 against a real server, with calls made from the wire contract alone (tests/tei_wire.py)."""

import grpc
import numpy as np
import pytest
import tei_wire as wire
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from tei_calls import LONG, TEXT, embed, refusal, told

NOT_SERVED = ("Predict", "Rerank", "Embed/EmbedSparse", "Embed/EmbedAll")
REFUSED = [method for method in wire.METHODS if method.startswith(NOT_SERVED)]
HEADERS = {
    "x-compute-type",
    "x-compute-time",
    "x-compute-characters",
    "x-compute-tokens",
    "x-total-time",
    "x-tokenization-time",
    "x-queue-time",
    "x-inference-time",
}


@pytest.fixture
def channel(server):
    with grpc.insecure_channel(server.target) as channel:
        yield channel


def test_a_vector_is_the_models_own_at_unit_length(channel, client):
    vector = embed(channel)
    np.testing.assert_allclose(vector, client.embed(TEXT, input_type="raw"), atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(vector), 1, rtol=1e-6)
    np.testing.assert_array_equal(vector, embed(channel, normalize=True))


def test_normalize_false_leaves_the_vector_as_pooled(channel, client):
    vector = embed(channel, normalize=False)
    np.testing.assert_allclose(vector, client.embed(TEXT, input_type="raw", unnormalized=True), atol=1e-5)
    assert abs(np.linalg.norm(vector) - 1) > 0.1


def test_a_prompt_goes_before_the_text_only_if_named(channel, client):
    np.testing.assert_allclose(embed(channel, prompt_name="query"), client.embed_queries(TEXT), atol=1e-6)
    np.testing.assert_allclose(embed(channel, prompt_name="passage"), client.embed_documents(TEXT), atol=1e-6)
    np.testing.assert_array_equal(embed(channel, prompt_name=""), embed(channel))
    assert embed(channel) @ client.embed_queries(TEXT) < 0.999


@pytest.mark.parametrize("method", ["Embed/Embed", "Tokenize/Tokenize"])
def test_an_unknown_prompt_is_refused_with_those_there_are(channel, method):
    with pytest.raises(grpc.RpcError) as caught:
        request = wire.make(wire.request_class(method), inputs=TEXT, prompt_name="poem")
        wire.call(channel, method)(request, timeout=30)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "passage" in caught.value.details() and "query" in caught.value.details()


@pytest.mark.parametrize("dimensions", [1, 100, 256, 384])
def test_a_vector_can_be_cut_anywhere_and_keeps_unit_length(channel, dimensions):
    leading = embed(channel)[:dimensions]
    np.testing.assert_allclose(embed(channel, dimensions=dimensions), leading / np.linalg.norm(leading), atol=1e-6)


@pytest.mark.parametrize("dimensions", [0, 385, 2**32 - 1])
def test_dimensions_that_the_model_does_not_have_are_refused(channel, dimensions):
    expected = (grpc.StatusCode.INVALID_ARGUMENT, "UNSUPPORTED_DIMENSIONS", "dimensions")
    assert refusal(channel, "Embed/Embed", inputs=TEXT, dimensions=dimensions) == expected


def test_a_text_that_is_too_long_is_refused_unless_truncate_is_set(channel):
    expected = (grpc.StatusCode.INVALID_ARGUMENT, "TEXT_TOO_LONG", "inputs")
    assert refusal(channel, "Embed/Embed", inputs=LONG) == expected
    assert refusal(channel, "Embed/Embed", inputs=LONG, truncation_direction=1) == expected


@pytest.mark.parametrize(("direction", "truncation"), [(0, "end"), (1, "start")])
def test_truncate_cuts_the_side_that_is_named(channel, client, direction, truncation):
    expected = client.embed(LONG, input_type="raw", truncation=truncation)
    np.testing.assert_allclose(embed(channel, LONG, truncate=True, truncation_direction=direction), expected, atol=1e-6)
    other = embed(channel, LONG, truncate=True, truncation_direction=1 - direction)
    assert expected @ other < 0.9999


@pytest.mark.parametrize("truncate", [False, True])
def test_an_unknown_direction_is_refused(channel, truncate):
    expected = (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD", "truncation_direction")
    fields = {"inputs": TEXT, "truncate": truncate, "truncation_direction": 7}
    assert refusal(channel, "Embed/Embed", **fields) == expected


@pytest.mark.parametrize("method", ["Embed/Embed", "Tokenize/Tokenize"])
def test_an_empty_text_is_refused(channel, method):
    assert refusal(channel, method) == (grpc.StatusCode.INVALID_ARGUMENT, "EMPTY_TEXT", "inputs")


def test_metadata_says_what_a_text_cost(channel, client):
    request = wire.make("EmbedRequest", inputs=TEXT, prompt_name="query")
    metadata = wire.call(channel, "Embed/Embed")(request, timeout=30).metadata
    assert metadata.compute_chars == len(TEXT)
    assert metadata.compute_tokens == client.tokenize(TEXT, input_type="query").token_count
    stages = (metadata.tokenization_time_ns, metadata.queue_time_ns, metadata.inference_time_ns)
    assert all(stages) and metadata.total_time_ns > sum(stages)
    cut = wire.make("EmbedRequest", inputs=LONG, truncate=True)
    assert wire.call(channel, "Embed/Embed")(cut, timeout=30).metadata.compute_tokens == 512


def test_headers_of_a_single_answer_say_the_same_in_milliseconds(channel):
    request = wire.make("EmbedRequest", inputs=TEXT)
    answer, call = wire.call(channel, "Embed/Embed").with_call(request, timeout=30)
    headers = dict(call.initial_metadata())
    assert {name for name in headers if name.startswith("x-")} == HEADERS
    assert headers.pop("x-compute-type") == "cpu+optimized"
    metadata = answer.metadata
    assert {name: int(value) for name, value in headers.items() if name in HEADERS} == {
        "x-compute-time": metadata.total_time_ns // 10**6,
        "x-compute-characters": metadata.compute_chars,
        "x-compute-tokens": metadata.compute_tokens,
        "x-total-time": metadata.total_time_ns // 10**6,
        "x-tokenization-time": metadata.tokenization_time_ns // 10**6,
        "x-queue-time": metadata.queue_time_ns // 10**6,
        "x-inference-time": metadata.inference_time_ns // 10**6,
    }
    assert "x-request-id" in dict(call.trailing_metadata())


@pytest.mark.parametrize("method", ["Embed/Embed", "Tokenize/Tokenize", "Tokenize/Decode"])
def test_bytes_that_are_no_message_are_refused(channel, method):
    with pytest.raises(grpc.RpcError) as caught:
        channel.unary_unary(f"/tei.v1.{method}")(b"\x0a\xff", timeout=30)
    assert told(caught.value)[:2] == (grpc.StatusCode.INVALID_ARGUMENT, "MALFORMED_MESSAGE")


@pytest.mark.parametrize("method", REFUSED)
def test_what_needs_another_kind_of_model_is_unimplemented_with_a_sentence(channel, method):
    request = wire.make(wire.request_class(method))
    call = wire.call(channel, method)
    with pytest.raises(grpc.RpcError) as caught:
        answer = call(iter([request]) if "stream" in wire.METHODS[method][0] else request, timeout=10)
        list(answer)
    assert told(caught.value) == (grpc.StatusCode.UNIMPLEMENTED, "UNSUPPORTED_METHOD", "")
    assert caught.value.details().endswith(".")


def test_info_describes_the_default_model(channel, client):
    info = wire.call(channel, "Info/Info")(wire.make("InfoRequest"), timeout=10)
    model = client.model()
    assert (info.model_id, info.model_dtype, info.model_type) == ("e5-small", "float32", 0)
    assert info.max_input_length == model.max_token_count == 512
    assert info.max_batch_tokens >= info.max_input_length
    assert info.max_client_batch_size == model.limits.max_text_count
    assert info.max_concurrent_requests > 100 and info.tokenization_workers == 2
    assert info.version
    assert not info.HasField("docker_label") and not info.HasField("max_batch_requests")


def test_health_says_which_services_there_are(channel):
    health = health_pb2_grpc.HealthStub(channel)
    serving = {
        name: health.Check(health_pb2.HealthCheckRequest(service=f"tei.v1.{name}"), timeout=5).status
        for name in ("Info", "Embed", "Tokenize", "Predict", "Rerank")
    }
    up, down = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING
    assert serving == {"Info": up, "Embed": up, "Tokenize": up, "Predict": down, "Rerank": down}


def test_reflection_shows_the_services(channel):
    services = ProtoReflectionDescriptorDatabase(channel).get_services()
    assert {name for name in services if name.startswith("tei.v1.")} == {
        f"tei.v1.{method.split('/')[0]}" for method in wire.METHODS
    }


def test_calls_are_counted_by_service_and_method(channel, server):
    name = 'polarvec_requests_total{code="OK",method="tei.v1.Embed/Embed"}'
    texts = 'polarvec_texts_total{model="e5-small"}'
    before, texts_before = server.counted(name), server.metric(texts)
    embed(channel)
    wire.call(channel, "Tokenize/Tokenize")(wire.make("EncodeRequest", inputs=TEXT), timeout=30)
    assert (server.counted(name) - before, server.metric(texts) - texts_before) == (1, 1)
