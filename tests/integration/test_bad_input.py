"""Bad input, on the wire: each with its documented status, and the service healthy afterwards."""

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2
from polarvec import Client, InvalidRequest
from polarvec_proto.v1 import embedding_pb2 as pb
from polarvec_proto.v1 import embedding_pb2_grpc

Q, D = pb.INPUT_TYPE_QUERY, pb.INPUT_TYPE_DOCUMENT
LONG = "데비안 " * 1500
BAD = {
    "empty list": (dict(texts=[], input_type=Q), "NO_TEXTS", {}),
    "empty text": (dict(texts=["a", ""], input_type=Q), "EMPTY_TEXT", {"index": "1"}),
    "white space": (dict(texts=[" \t\n　"], input_type=Q), "EMPTY_TEXT", {"index": "0"}),
    "no input type": (dict(texts=["a"]), "UNKNOWN_INPUT_TYPE", {"input_type": "0"}),
    "unknown input type": (dict(texts=["a"], input_type=99), "UNKNOWN_INPUT_TYPE", {"input_type": "99"}),
    "unknown truncation": (dict(texts=["a"], input_type=Q, truncation=77), "INVALID_FIELD", {"field": "truncation"}),
    "unknown priority": (dict(texts=["a"], input_type=Q, priority=-3), "INVALID_FIELD", {"field": "priority"}),
    "unknown encoding": (dict(texts=["a"], input_type=Q, encoding=9), "UNSUPPORTED_ENCODING", {"encoding": "9"}),
    "dimensions -1": (dict(texts=["a"], input_type=Q, dimensions=-1), "UNSUPPORTED_DIMENSIONS", {"dimensions": "-1"}),
    "dimensions 7": (dict(texts=["a"], input_type=Q, dimensions=7), "UNSUPPORTED_DIMENSIONS", {"dimensions": "7"}),
    "dimensions 10^9": (dict(texts=["a"], input_type=Q, dimensions=10**9), "UNSUPPORTED_DIMENSIONS", {}),
    "unknown model": (dict(texts=["a"], input_type=Q, model="gpt-9"), "UNKNOWN_MODEL", {"models": "e5-small"}),
    "path as model": (dict(texts=["a"], input_type=Q, model="../../etc"), "UNKNOWN_MODEL", {"models": "e5-small"}),
    "NUL in model": (dict(texts=["a"], input_type=Q, model="e5-small\0"), "UNKNOWN_MODEL", {}),
    "unknown prompt": (dict(texts=["a"], input_type=Q, prompt_name="x"), "UNKNOWN_PROMPT", {}),
    "long prompt": (dict(texts=["a"], input_type=Q, prompt_text="x" * 5000), "INVALID_TEXT", {}),
    "too long": (dict(texts=["a", LONG], input_type=D), "TEXT_TOO_LONG", {"index": "1", "token_limit": "512"}),
    "10 MB text": (dict(texts=["가나다 " * 1_000_000], input_type=D), "TEXT_TOO_LONG", {"byte_count": "10000000"}),
    "10 MB text, truncated": (
        dict(texts=["가나다 " * 1_000_000], input_type=D, truncation=pb.TRUNCATION_END),
        "TEXT_TOO_LONG",
        {"byte_limit": "1048576"},
    ),
    "a million texts": (dict(texts=["a"] * 1_000_000, input_type=D), "TOO_MANY_TEXTS", {"text_count": "1000000"}),
}  # fmt: skip


def reason_of(error: grpc.RpcError) -> error_details_pb2.ErrorInfo:
    status = status_pb2.Status.FromString(dict(error.trailing_metadata())["grpc-status-details-bin"])
    info = error_details_pb2.ErrorInfo()
    assert status.details[0].Unpack(info)
    assert status.message == error.details()
    return info


@pytest.fixture(scope="module")
def channel(server):
    with grpc.insecure_channel(server.target, options=[("grpc.max_send_message_length", 64 << 20)]) as channel:
        yield channel


@pytest.fixture(autouse=True)
def service_stays_healthy(server, channel):
    before = {process.pid for process in server.processes()}
    yield
    stub = embedding_pb2_grpc.EmbeddingServiceStub(channel)
    assert stub.Embed(pb.EmbedRequest(texts=["건강한가?"], input_type=Q), timeout=30).dimensions == 384
    assert {process.pid for process in server.processes()} == before


@pytest.mark.parametrize(("fields", "reason", "metadata"), BAD.values(), ids=BAD)
def test_bad_requests_get_their_reason(channel, fields, reason, metadata):
    with pytest.raises(grpc.RpcError) as caught:
        embedding_pb2_grpc.EmbeddingServiceStub(channel).Embed(pb.EmbedRequest(**fields), timeout=60)
    info = reason_of(caught.value)
    assert info.reason == reason
    assert info.domain == "polarvec"
    assert metadata.items() <= dict(info.metadata).items()
    code = grpc.StatusCode.NOT_FOUND if reason == "UNKNOWN_MODEL" else grpc.StatusCode.INVALID_ARGUMENT
    assert caught.value.code() is code


def test_dimensions_zero_means_all(channel):
    stub = embedding_pb2_grpc.EmbeddingServiceStub(channel)
    assert stub.Embed(pb.EmbedRequest(texts=["a"], input_type=Q, dimensions=0), timeout=30).dimensions == 384


@pytest.mark.parametrize("truncation", [pb.TRUNCATION_END, pb.TRUNCATION_START])
def test_too_long_is_cut_when_asked(channel, truncation):
    stub = embedding_pb2_grpc.EmbeddingServiceStub(channel)
    answer = stub.Embed(pb.EmbedRequest(texts=[LONG], input_type=D, truncation=truncation), timeout=30)
    assert list(answer.token_counts) == [512]
    assert answer.truncated[0].token_count > 512


def test_a_message_over_the_limit_is_refused_by_the_transport(channel):
    stub = embedding_pb2_grpc.EmbeddingServiceStub(channel)
    with pytest.raises(grpc.RpcError) as caught:
        stub.Embed(pb.EmbedRequest(texts=["x" * (1 << 20)] * 20, input_type=D), timeout=60)
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


VALID = pb.EmbedRequest(texts=["안녕하세요"], input_type=Q).SerializeToString()
BROKEN = {
    "invalid UTF-8": b"\x12\x02\xc3\x28\x18\x01",
    "CESU-8 surrogates": b"\x12\x06\xed\xa0\xbd\xed\xb8\x80\x18\x01",
    "truncated": VALID[:-5],
    "length beyond the end": b"\x12\xff\xff\xff\x7f",
    "random bytes": bytes(range(255, 0, -1)),
}
# ListModelsRequest has no fields and GetModelRequest none of number 2, so for them only some of these are broken.
BROKEN_CALLS = [(method, name) for method in ("Embed", "Rank", "Tokenize") for name in BROKEN]
BROKEN_CALLS += [("ListModels", "random bytes"), ("GetModel", "random bytes"), ("GetModel", "length beyond the end")]


@pytest.mark.parametrize(("method", "name"), BROKEN_CALLS)
def test_bytes_that_are_no_message(channel, method, name):
    data = BROKEN[name]
    call = channel.unary_unary(f"/polarvec.v1.EmbeddingService/{method}")
    with pytest.raises(grpc.RpcError) as caught:
        call(data, timeout=10)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert reason_of(caught.value).reason == "MALFORMED_MESSAGE"


@pytest.mark.parametrize("data", BROKEN.values(), ids=BROKEN)
def test_a_stream_of_bytes_that_are_no_message(channel, data):
    # A nested message's own bytes are broken, so the item as a whole is.
    item = b"\x08\x01\x12" + bytes([len(data) % 128]) + data[: len(data) % 128]
    call = channel.stream_stream("/polarvec.v1.EmbeddingService/EmbedStream")
    with pytest.raises(grpc.RpcError) as caught:
        list(call(iter([item]), timeout=10))
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


def test_an_unknown_method_is_unimplemented(channel):
    with pytest.raises(grpc.RpcError) as caught:
        channel.unary_unary("/polarvec.v1.EmbeddingService/Dream")(b"", timeout=10)
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


def test_a_lone_surrogate_is_refused_by_the_sdk(server):
    with Client(server.target) as client, pytest.raises(InvalidRequest) as caught:
        client.embed_queries(["a", "\ud800"])
    assert "texts[1]" in str(caught.value)


def test_rank_names_the_field_that_is_wrong(channel):
    stub = embedding_pb2_grpc.EmbeddingServiceStub(channel)
    for fields, field in (
        (dict(queries=[], documents=["a"]), "queries"),
        (dict(queries=["a"], documents=[]), "documents"),
        (dict(queries=["a"], documents=["b", " "]), "documents[1]"),
        (dict(queries=["a"], documents=["b"], top_k=-1), "top_k"),
    ):
        with pytest.raises(grpc.RpcError) as caught:
            stub.Rank(pb.RankRequest(**fields), timeout=30)
        status = status_pb2.Status.FromString(dict(caught.value.trailing_metadata())["grpc-status-details-bin"])
        violation = error_details_pb2.BadRequest()
        assert status.details[1].Unpack(violation)
        assert violation.field_violations[0].field == field


def test_no_answer_names_internals(channel):
    for fields, _, _ in BAD.values():
        with pytest.raises(grpc.RpcError) as caught:
            embedding_pb2_grpc.EmbeddingServiceStub(channel).Embed(pb.EmbedRequest(**fields), timeout=60)
        words = caught.value.details().lower()
        assert not any(word in words for word in ("triton", "python", "traceback", "/", "exception", "stub"))
