"""tei.v1 on a server with a prompt of its own, little room, and API keys."""

import grpc
import numpy as np
import pytest
import tei_wire as wire
from google.rpc import error_details_pb2, status_pb2
from server_process import ServerProcess

KEY = (("authorization", "Bearer a-key-that-may-do-everything"),)
OTHER_KEY = (("authorization", "Bearer a-key-for-another-model"),)
# About 400 tokens by estimate, of the 1,000 that single calls may hold.
LARGE = "데비안은 자유로운 운영 체제입니다. " * 50


@pytest.fixture(scope="module")
def channel(tiny_model, cache, tmp_path_factory):
    keys = tmp_path_factory.mktemp("keys") / "keys"
    keys.write_text("all a-key-that-may-do-everything\nother a-key-for-another-model e5-small\n")
    keys.chmod(0o600)
    process = ServerProcess(
        tiny_model, cache, precision="f32", workers=1, tei_prompt_name="query", queue_tokens=2000, api_keys_file=keys
    )
    with grpc.insecure_channel(process.wait_ready().target) as channel:
        yield channel
    process.stop()


def embed(channel, **fields):
    request = wire.make("EmbedRequest", **fields)
    return np.array(wire.call(channel, "Embed/Embed")(request, timeout=30, metadata=KEY).embeddings)


def test_the_default_prompt_holds_for_calls_that_name_none(channel):
    default = embed(channel, inputs="데비안")
    np.testing.assert_array_equal(default, embed(channel, inputs="데비안", prompt_name="query"))
    np.testing.assert_allclose(default, embed(channel, inputs="query: 데비안", prompt_name=""), atol=1e-6)
    request = wire.make("EncodeRequest", inputs="데비안")
    tokens = wire.call(channel, "Tokenize/Tokenize")(request, timeout=30, metadata=KEY).tokens
    assert tokens[0].text.startswith("qu") and tokens[-1].stop == len("query: 데비안".encode())


def test_a_single_call_is_refused_at_once_when_there_is_no_room(channel):
    method = wire.call(channel, "Embed/Embed")
    # Equal texts would be computed once, and take the room of one.
    requests = [wire.make("EmbedRequest", inputs=f"{number} {LARGE}", truncate=True) for number in range(100)]
    calls = [method.future(request, timeout=60, metadata=KEY) for request in requests]
    errors = [error for call in calls if (error := call.exception()) is not None]
    assert 0 < len(errors) < len(calls)
    for error in errors:
        assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        status = status_pb2.Status.FromString(dict(error.trailing_metadata())["grpc-status-details-bin"])
        assert status.details[-1].Unpack(error_details_pb2.RetryInfo())


def test_a_stream_waits_where_single_calls_are_refused(channel):
    requests = (wire.make("EmbedRequest", inputs=f"{number} {LARGE}", truncate=True) for number in range(100))
    answers = list(wire.call(channel, "Embed/EmbedStream")(requests, timeout=60, metadata=KEY))
    assert len(answers) == 100


@pytest.mark.parametrize(
    ("metadata", "code"),
    [((), grpc.StatusCode.UNAUTHENTICATED), (OTHER_KEY, grpc.StatusCode.PERMISSION_DENIED)],
    ids=["no key", "key for another model"],
)
@pytest.mark.parametrize("method", ["Info/Info", "Embed/Embed", "Embed/EmbedStream", "Tokenize/Tokenize"])
def test_keys_hold_here_too(channel, method, metadata, code):
    request = wire.make(wire.request_class(method))
    streams = "stream" in wire.METHODS[method][0]
    with pytest.raises(grpc.RpcError) as caught:
        answer = wire.call(channel, method)(iter([request]) if streams else request, timeout=30, metadata=metadata)
        list(answer)
    assert caught.value.code() is code


def test_a_prompt_that_the_model_does_not_have_ends_the_start(tiny_model, cache):
    process = ServerProcess(tiny_model, cache, precision="f32", workers=1, tei_prompt_name="poem")
    try:
        assert process.wait_ended() != 0
    finally:
        process.kill()
    assert "POLARVEC_TEI_PROMPT_NAME: the default model has no poem; it has: query." in process.output
