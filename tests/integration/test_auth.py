"""API keys on a real server: both doors ask for them, health and metrics do not, and no key is ever written."""

import hashlib

import grpc
import httpx
import openai
import pytest
from google.rpc import error_details_pb2, status_pb2
from grpc_channelz.v1 import channelz_pb2, channelz_pb2_grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from polarvec_proto.v1 import embedding_pb2 as pb
from polarvec_proto.v1 import embedding_pb2_grpc
from server_process import ServerProcess, wait_until

FULL, HASHED, ELSEWHERE, LATER = (
    "full-key-0123456789",
    "hashed-key-0123456789",
    "else-key-0123456789",
    "later-key-0123456789",
)
REQUEST = pb.EmbedRequest(texts=["안녕"], input_type=pb.INPUT_TYPE_QUERY)


@pytest.fixture(scope="module")
def keys_file(tmp_path_factory):
    file = tmp_path_factory.mktemp("keys") / "keys"
    digest = hashlib.sha256(HASHED.encode()).hexdigest()
    file.write_text(
        f"# who  what  models\nfull {FULL}\n\nhashed sha256:{digest} tiny\nelse {ELSEWHERE} other,another\n"
    )
    return file


@pytest.fixture(scope="module")
def guarded(tiny_model, cache, keys_file):
    settings = dict(precision="f32", workers=1, log_level="debug", channelz=True)
    process = ServerProcess(tiny_model, cache, api_keys_file=keys_file, **settings).wait_ready()
    yield process
    process.stop()


@pytest.fixture(scope="module")
def channel(guarded):
    with grpc.insecure_channel(guarded.target) as channel:
        yield channel


def bearer(key):
    return [("authorization", f"Bearer {key}")]


def reason_of(error):
    status = status_pb2.Status.FromString(dict(error.trailing_metadata())["grpc-status-details-bin"])
    info = error_details_pb2.ErrorInfo()
    assert status.details[0].Unpack(info)
    return info.reason


def openai_of(server, key):
    return openai.OpenAI(base_url=server.openai_url, api_key=key, max_retries=0)


@pytest.mark.parametrize("key", [FULL, HASHED], ids=["plain", "sha256"])
def test_a_known_key_is_let_in(guarded, channel, key):
    stub = embedding_pb2_grpc.EmbeddingServiceStub(channel)
    assert stub.Embed(REQUEST, metadata=bearer(key), timeout=30).dimensions == 64
    with openai_of(guarded, key) as caller:
        assert len(caller.embeddings.create(model="tiny", input="안녕").data[0].embedding) == 64


WRONG = {
    "none": [],
    "another": bearer("another-key-0123456789"),
    "empty": [("authorization", "Bearer")],
    "no scheme": [("authorization", FULL)],
    "basic": [("authorization", f"Basic {FULL}")],
    "the digest itself": bearer("sha256:" + hashlib.sha256(HASHED.encode()).hexdigest()),
    "a name": bearer("full"),
    "a prefix": bearer(FULL[:-1]),
}


@pytest.mark.parametrize("metadata", WRONG.values(), ids=WRONG)
def test_a_wrong_key_is_refused_at_both_doors(guarded, channel, metadata):
    stub = embedding_pb2_grpc.EmbeddingServiceStub(channel)
    for call in (
        lambda: stub.Embed(REQUEST, metadata=metadata, timeout=30),
        lambda: stub.ListModels(pb.ListModelsRequest(), metadata=metadata, timeout=30),
        lambda: list(stub.EmbedStream(iter([pb.EmbedStreamRequest(request=REQUEST)]), metadata=metadata, timeout=30)),
        lambda: channel.unary_unary("/tei.v1.Info/Info")(b"", metadata=metadata, timeout=30),
    ):
        with pytest.raises(grpc.RpcError) as caught:
            call()
        assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
        assert reason_of(caught.value) == "UNAUTHENTICATED"
    for path in ("/embeddings", "/models"):
        method = "POST" if path == "/embeddings" else "GET"
        answer = httpx.request(method, guarded.openai_url + path, headers=dict(metadata), content=b"{")
        assert answer.status_code == 401 and answer.headers["www-authenticate"] == "Bearer"
        assert answer.json()["error"]["code"] == "invalid_api_key"


def test_openai_says_authentication_error(guarded):
    with openai_of(guarded, "wrong") as caller, pytest.raises(openai.AuthenticationError):
        caller.embeddings.create(model="tiny", input="a")


def test_a_key_for_other_models_sees_and_uses_none_here(guarded, channel):
    stub = embedding_pb2_grpc.EmbeddingServiceStub(channel)
    for request in (REQUEST, pb.EmbedRequest(model="tiny", texts=["안녕"], input_type=pb.INPUT_TYPE_QUERY)):
        with pytest.raises(grpc.RpcError) as caught:
            stub.Embed(request, metadata=bearer(ELSEWHERE), timeout=30)
        assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED
    item = pb.EmbedStreamRequest(item_number=7, request=REQUEST)
    (answer,) = stub.EmbedStream(iter([item]), metadata=bearer(ELSEWHERE), timeout=30)
    assert answer.item_number == 7 and answer.error.code == grpc.StatusCode.PERMISSION_DENIED.value[0]
    assert not stub.ListModels(pb.ListModelsRequest(), metadata=bearer(ELSEWHERE), timeout=30).models
    with openai_of(guarded, ELSEWHERE) as caller:
        assert caller.models.list().data == []
        with pytest.raises(openai.PermissionDeniedError):
            caller.embeddings.create(model="tiny:query", input="a")


def test_health_reflection_and_metrics_need_no_key(guarded, channel):
    check = health_pb2_grpc.HealthStub(channel).Check
    assert check(health_pb2.HealthCheckRequest(), timeout=30).status == health_pb2.HealthCheckResponse.SERVING
    reflect = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo
    (listed,) = reflect(iter([reflection_pb2.ServerReflectionRequest(list_services="")]), timeout=30)
    assert "polarvec.v1.EmbeddingService" in {service.name for service in listed.list_services_response.service}
    assert guarded.http("/readyz")[0] == 200
    assert guarded.http("/metrics")[0] == 200


def test_channelz_which_knows_the_callers_needs_a_key(guarded, channel):
    look = channelz_pb2_grpc.ChannelzStub(channel).GetServers
    with pytest.raises(grpc.RpcError) as caught:
        look(channelz_pb2.GetServersRequest(), timeout=30)
    assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
    assert look(channelz_pb2.GetServersRequest(), metadata=bearer(FULL), timeout=30).server


def test_the_log_has_the_name_of_the_key_and_never_the_key(guarded, channel):
    stub = embedding_pb2_grpc.EmbeddingServiceStub(channel)
    trace = "4bf92f3577b34da6a3ce929d0e0e4736"
    caller = [("x-request-id", "whose"), ("traceparent", f"00-{trace}-00f067aa0ba902b7-01")]
    stub.Embed(REQUEST, metadata=[*bearer(FULL), *caller], timeout=30)
    wait_until(lambda: any('"whose"' in line for line in guarded.lines), 10, "the call is in the log")
    (line,) = (line for line in guarded.lines if '"whose"' in line)
    assert '"key": "full"' in line and f'"trace_id": "{trace}"' in line
    written = guarded.output + guarded.http("/metrics")[1]
    for secret in (FULL, HASHED, ELSEWHERE, hashlib.sha256(HASHED.encode()).hexdigest()):
        assert secret not in written


def test_a_changed_file_counts_without_a_restart(guarded, channel, keys_file):
    stub = embedding_pb2_grpc.EmbeddingServiceStub(channel)

    def may(key):
        try:
            stub.Embed(REQUEST, metadata=bearer(key), timeout=30)
        except grpc.RpcError as error:
            assert error.code() is grpc.StatusCode.UNAUTHENTICATED
            return False
        return True

    before = keys_file.read_text()
    assert not may(LATER)
    try:
        keys_file.write_text(before + f"later {LATER}\n")
        wait_until(lambda: may(LATER), 10, "the new key is known")
        keys_file.write_text("later short\n")
        wait_until(lambda: "the API keys stay as they are" in guarded.output, 10, "the broken file is noticed")
        assert may(LATER) and may(FULL)
    finally:
        keys_file.write_text(before)
    wait_until(lambda: not may(LATER), 10, "the key is gone")
    assert may(FULL)
