"""Overload on a real server: refused at once, with a delay to come back after; queries and streams get through."""

import threading

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2
from polarvec import Client
from polarvec_proto.v1 import embedding_pb2 as pb
from polarvec_proto.v1 import embedding_pb2_grpc
from server_process import ServerProcess, wait_until


def documents(count, name):
    """Different texts: equal ones would be computed once."""
    return [f"{name} {number}: " + "데비안은 자유로운 운영 체제입니다. " * 20 for number in range(count)]


@pytest.fixture(scope="module")
def small_server(e5_small, cache):
    process = ServerProcess("e5-small", cache, precision="f32", workers=1, queue_tokens=8192).wait_ready()
    yield process
    process.stop()


@pytest.fixture
def busy(small_server):
    """Bulk calls that use up the bulk share, one after the other, until the test is over."""
    over = threading.Event()
    request = pb.EmbedRequest(texts=documents(60, "busy"), input_type=pb.INPUT_TYPE_DOCUMENT)

    def keep_busy():
        with grpc.insecure_channel(small_server.target) as channel:
            stub = embedding_pb2_grpc.EmbeddingServiceStub(channel)
            while not over.is_set():
                stub.Embed(request, timeout=60)

    thread = threading.Thread(target=keep_busy)
    thread.start()
    wait_until(lambda: small_server.metric("polarvec_held_tokens") > 2048, 30, "the share is used up")
    yield over
    over.set()
    thread.join(60)


def refused(stub, request):
    """Calls until one is refused: between two bulk calls there is room for a moment."""
    for _ in range(50):
        try:
            stub.Embed(request, timeout=30)
        except grpc.RpcError as error:
            return error
    raise AssertionError("never refused")


def test_a_refusal_says_when_to_come_back(small_server, busy):
    with grpc.insecure_channel(small_server.target) as channel:
        stub = embedding_pb2_grpc.EmbeddingServiceStub(channel)
        error = refused(stub, pb.EmbedRequest(texts=documents(8, "refused"), input_type=pb.INPUT_TYPE_DOCUMENT))
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    trailers = dict(error.trailing_metadata())
    status = status_pb2.Status.FromString(trailers["grpc-status-details-bin"])
    info, retry = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
    assert status.details[0].Unpack(info) and info.reason == "OVERLOADED"
    assert status.details[1].Unpack(retry)
    assert 50 * 0.8 <= retry.retry_delay.ToMilliseconds() <= 30_000 * 1.2
    assert int(trailers["grpc-retry-pushback-ms"]) == pytest.approx(retry.retry_delay.ToMilliseconds(), abs=2)


def test_queries_and_streams_get_through(small_server, busy):
    with Client(small_server.target) as client:
        for number in range(5):
            assert client.embed_queries(f"질문 {number}").shape == (384,)
        items = list(client.embed_stream(documents(40, "stream"), input_type="document"))
    assert [item.error for item in items] == [None] * 40


def test_the_sdk_waits_and_tries_again(small_server, busy):
    refusals = 'polarvec_requests_total{code="RESOURCE_EXHAUSTED"'
    before = small_server.counted(refusals)
    # The call that is in goes on for some seconds; after it there is room.
    busy.set()
    with Client(small_server.target, timeout_s=60) as client:
        assert client.embed_documents(documents(8, "patient")).shape == (8, 384)
    assert small_server.counted(refusals) > before
