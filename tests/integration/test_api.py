"""The whole of polarvec.v1 against a real server, as its users see it."""

import time

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from polarvec_proto.v1 import embedding_pb2 as pb
from polarvec_proto.v1 import embedding_pb2_grpc

TEXTS = ["데비안은 자유로운 운영 체제입니다.", "Debian is a free operating system.", "오늘 날씨가 맑다."]


@pytest.fixture
def stub(server):
    with grpc.insecure_channel(server.target) as channel:
        yield embedding_pb2_grpc.EmbeddingServiceStub(channel)


def test_vectors_have_unit_length_and_the_order_of_the_texts(client):
    together = client.embed_documents(TEXTS)
    assert together.shape == (3, 384) and together.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1, rtol=1e-5)
    for row, text in zip(together, TEXTS, strict=True):
        assert row @ client.embed_documents(text) > 0.99999


def test_queries_and_documents_get_their_own_prompts(client):
    query, document = client.embed_queries(TEXTS[0]), client.embed_documents(TEXTS[0])
    raw = client.embed(f"query: {TEXTS[0]}", input_type="raw")
    assert query @ raw > 0.99999
    assert query @ document < 0.999
    np.testing.assert_allclose(client.embed(TEXTS[0], input_type="raw", prompt_name="passage"), document, atol=1e-6)
    literal = client.embed(TEXTS[0], input_type="raw", prompt_text="passage: ")
    np.testing.assert_allclose(literal, document, atol=1e-6)


def test_fewer_dimensions_are_the_leading_ones_at_unit_length(client):
    full, short = client.embed_documents(TEXTS), client.embed_documents(TEXTS, dimensions=256)
    expected = full[:, :256] / np.linalg.norm(full[:, :256], axis=1, keepdims=True)
    np.testing.assert_allclose(short, expected, atol=1e-6)


def test_encodings_tell_the_same_vector(client):
    full = client.embed_documents(TEXTS)
    half = client.embed_documents(TEXTS, encoding="float16")
    assert half.dtype == np.float16
    np.testing.assert_allclose(half, full, atol=2e-4)
    quantised = client.embed_documents(TEXTS, encoding="int8")
    np.testing.assert_allclose(quantised.to_float32(), full, atol=float(quantised.scales.max()) * 0.51)
    bits = client.embed_documents(TEXTS, encoding="binary")
    assert bits.shape == (3, 48)
    np.testing.assert_array_equal(np.unpackbits(bits, axis=1), full > 0)


def test_unnormalized_vectors_point_the_same_way(client):
    pooled = client.embed_documents(TEXTS, unnormalized=True)
    norms = np.linalg.norm(pooled, axis=1, keepdims=True)
    assert (np.abs(norms - 1) > 0.1).all()
    np.testing.assert_allclose(pooled / norms, client.embed_documents(TEXTS), atol=1e-5)


def test_answers_carry_counts_fingerprint_and_timings(client):
    result = client.embed_detailed(TEXTS, input_type="document")
    counted = client.tokenize(TEXTS, input_type="document", include_ids=True)
    assert list(result.token_counts) == [text.token_count for text in counted]
    assert [len(text.token_ids) for text in counted] == list(result.token_counts)
    assert result.fingerprint == client.model().fingerprint
    assert result.calls[0].inference_ms > 0 and result.calls[0].request_id


def test_truncation_keeps_the_asked_side_and_reports(client):
    words = [f"단어{n}" for n in range(600)]
    long = " ".join(words)
    full = client.tokenize(long, input_type="document").token_count
    assert full > 512
    result = client.embed_detailed([TEXTS[0], long], input_type="document", truncation="end")
    assert result.token_counts[1] == 512
    assert [(text.index, text.token_count) for text in result.truncated] == [(1, full)]
    start_cut = client.embed_documents(long, truncation="start")
    tail = client.embed_documents(" ".join(words[-120:]))
    head = client.embed_documents(" ".join(words[:120]))
    assert start_cut @ tail > start_cut @ head
    assert result.embeddings[1] @ head > result.embeddings[1] @ tail


def test_models_describe_themselves(client, server):
    (model,) = client.models()
    assert (model.id, model.dimensions, model.max_token_count, model.pooling) == ("e5-small", 384, 512, "mean")
    assert model.prompts == {"query": "query: ", "passage": "passage: "}
    assert (model.engine, model.precision) == ("openvino", "f32")
    assert client.model("e5-small") == model


def test_a_stream_answers_each_item_and_spoils_nothing(stub):
    def items():
        for number in range(40):
            text = "" if number % 10 == 3 else f"문서 {number}"
            yield pb.EmbedStreamRequest(
                item_number=1000 + number, request=pb.EmbedRequest(texts=[text], input_type=pb.INPUT_TYPE_DOCUMENT)
            )
        yield pb.EmbedStreamRequest(item_number=7)

    answers = {answer.item_number: answer for answer in stub.EmbedStream(items(), timeout=60)}
    assert set(answers) == {7, *range(1000, 1040)}
    for number, answer in answers.items():
        bad = number == 7 or number % 10 == 3
        assert answer.WhichOneof("result") == ("error" if bad else "response"), number
    assert answers[1003].error.code == grpc.StatusCode.INVALID_ARGUMENT.value[0]
    one = stub.Embed(pb.EmbedRequest(texts=["문서 5"], input_type=pb.INPUT_TYPE_DOCUMENT), timeout=30)
    streamed = np.frombuffer(answers[1005].response.embeddings, "<f4")
    assert streamed @ np.frombuffer(one.embeddings, "<f4") > 0.99999


def test_health_names_the_process_the_service_and_each_model(server):
    with grpc.insecure_channel(server.target) as channel:
        health = health_pb2_grpc.HealthStub(channel)
        for name in ("", "polarvec.v1.EmbeddingService", "e5-small"):
            answer = health.Check(health_pb2.HealthCheckRequest(service=name), timeout=5)
            assert answer.status == health_pb2.HealthCheckResponse.SERVING, name
        with pytest.raises(grpc.RpcError) as caught:
            health.Check(health_pb2.HealthCheckRequest(service="gpt-9"), timeout=5)
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND


def test_reflection_lists_the_services(server):
    with grpc.insecure_channel(server.target) as channel:
        services = set(ProtoReflectionDescriptorDatabase(channel).get_services())
    assert {"polarvec.v1.EmbeddingService", "grpc.health.v1.Health"} <= services


def test_rank_of_more_than_the_interactive_share_works_on_an_idle_server(client):
    # 300,000 tokens are over the call's limit, 150,000 over a worker's share: only the limit counts.
    documents = ["서울은 대한민국의 수도이다."] * 1023 + ["고래는 바다에 산다."]
    (ranking,) = client.rank(["수도는 어디인가?"], documents, top_k=2, timeout_s=120)
    assert list(ranking.document_indexes) == [0, 1]


def test_http_tells_metrics_and_readiness_of_all_workers(client, server):
    client.embed_queries(TEXTS)
    assert server.http("/healthz")[0] == 200
    assert server.http("/readyz")[0] == 200
    status, metrics = server.http("/metrics")
    assert status == 200
    for line in ('polarvec_requests_total{code="OK",method="Embed"}', 'polarvec_encoder_up{model="e5-small"} 1.0'):
        assert line in metrics
    for text in TEXTS:
        assert text not in metrics and text not in server.output


def test_work_past_its_deadline_ends_with_its_code_and_is_not_embedded(stub, server):
    request = pb.EmbedRequest(
        texts=[f"{number} " + "늦은 문서 " * 200 for number in range(200)],
        input_type=pb.INPUT_TYPE_DOCUMENT,
        truncation=pb.TRUNCATION_END,
    )
    before = server.triton_metric("nv_inference_request_success")
    with pytest.raises(grpc.RpcError) as caught:
        stub.Embed(request, timeout=0.2)
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    # 200 packs of 512 tokens would be 100 requests; only those of the window were sent.
    time.sleep(1)
    assert server.triton_metric("nv_inference_request_success") - before < 20


def test_the_callers_request_id_comes_back(stub):
    request = pb.EmbedRequest(texts=["하나"], input_type=pb.INPUT_TYPE_QUERY)
    _, call = stub.Embed.with_call(request, metadata=(("x-request-id", "order-66"),), timeout=30)
    trailers = dict(call.trailing_metadata())
    assert trailers["x-request-id"] == "order-66"
    assert {"x-queue-ms", "x-tokenize-ms", "x-inference-ms"} <= set(trailers)
    _, call = stub.Embed.with_call(request, metadata=(("x-request-id", "two words"),), timeout=30)
    assert dict(call.trailing_metadata())["x-request-id"].isalnum()
