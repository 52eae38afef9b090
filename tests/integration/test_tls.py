"""TLS and mTLS on a real server, at the gRPC door and the HTTP door alike."""

import ssl

import grpc
import httpx
import openai
import pytest
from certificates import Authority
from polarvec_proto.v1 import embedding_pb2 as pb
from polarvec_proto.v1 import embedding_pb2_grpc
from polarvec_server.errors import ConfigError
from polarvec_server.probes import probe_gateway
from server_process import ServerProcess, run_serve

REQUEST = pb.EmbedRequest(texts=["안녕"], input_type=pb.INPUT_TYPE_QUERY)
KEY = "tls-key-0123456789"


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("certificates"), "root")


@pytest.fixture(scope="module")
def strangers(tmp_path_factory):
    """Another root, which nobody here trusts."""
    return Authority(tmp_path_factory.mktemp("strangers"), "stranger")


@pytest.fixture(scope="module")
def pair(authority):
    return authority.issue("embed.example")


@pytest.fixture(scope="module")
def tls_server(tiny_model, cache, pair, tmp_path_factory):
    keys = tmp_path_factory.mktemp("keys") / "keys"
    keys.write_text(f"me {KEY}\n")
    process = ServerProcess(
        tiny_model, cache, workers=1, tls_cert_file=pair.cert, tls_key_file=pair.key, api_keys_file=keys
    ).wait_ready()
    yield process
    process.stop()


@pytest.fixture(scope="module")
def mtls_server(tiny_model, cache, authority, pair):
    process = ServerProcess(
        tiny_model, cache, workers=1,
        tls_cert_file=pair.cert, tls_key_file=pair.key, tls_client_ca_file=authority.file,
    ).wait_ready()  # fmt: skip
    yield process
    process.stop()


def embed(server, root, client=None, **call):
    parts = (client.key.read_bytes(), client.cert.read_bytes()) if client else (None, None)
    credentials = grpc.ssl_channel_credentials(root.file.read_bytes(), *parts)
    with grpc.secure_channel(server.target, credentials) as channel:
        return embedding_pb2_grpc.EmbeddingServiceStub(channel).Embed(REQUEST, timeout=10, **call)


def https(server, root, client=None):
    context = ssl.create_default_context(cafile=root.file)
    if client:
        context.load_cert_chain(client.cert, client.key)
    return httpx.Client(verify=context, base_url=server.openai_url.replace("http:", "https:"), timeout=30)


def test_both_doors_speak_tls_and_want_the_key(tls_server, authority):
    assert embed(tls_server, authority, metadata=[("authorization", f"Bearer {KEY}")]).dimensions == 64
    with pytest.raises(grpc.RpcError) as caught:
        embed(tls_server, authority)
    assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
    url = tls_server.openai_url.replace("http:", "https:")
    with https(tls_server, authority) as http, openai.OpenAI(base_url=url, api_key=KEY, http_client=http) as caller:
        assert len(caller.embeddings.create(model="tiny", input="안녕").data[0].embedding) == 64
    assert f"OpenAI {url}" in tls_server.output


def test_who_does_not_trust_the_root_does_not_connect(tls_server, strangers):
    with pytest.raises(grpc.RpcError) as caught:
        embed(tls_server, strangers)
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    with https(tls_server, strangers) as http, pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
        http.get("/models")


def test_plain_text_is_not_understood(tls_server):
    with grpc.insecure_channel(tls_server.target) as channel, pytest.raises(grpc.RpcError) as caught:
        embedding_pb2_grpc.EmbeddingServiceStub(channel).Embed(REQUEST, timeout=10)
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    with pytest.raises(httpx.TransportError):
        httpx.get(f"{tls_server.openai_url}/models")


def test_the_operators_port_stays_plain(tls_server):
    assert tls_server.http("/readyz")[0] == 200
    assert "polarvec_requests_total" in tls_server.http("/metrics")[1]
    probe_gateway(f"http://127.0.0.1:{tls_server.http_port}", "")
    with pytest.raises(ConfigError, match="does not answer"):
        probe_gateway(f"http://127.0.0.1:{tls_server.grpc_port}", "")


def test_mtls_lets_in_whom_the_root_vouches_for(mtls_server, authority):
    friend = authority.issue("caller")
    assert embed(mtls_server, authority, friend).dimensions == 64
    with https(mtls_server, authority, friend) as http:
        answer = http.post("/embeddings", json={"model": "tiny", "input": "안녕"})
    assert len(answer.json()["data"][0]["embedding"]) == 64


@pytest.mark.parametrize("kind", ["none", "stranger"])
def test_mtls_keeps_out_everybody_else(mtls_server, authority, strangers, kind):
    client = strangers.issue("caller") if kind == "stranger" else None
    with pytest.raises(grpc.RpcError) as caught:
        embed(mtls_server, authority, client)
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    with https(mtls_server, authority, client) as http, pytest.raises(httpx.TransportError):
        http.get("/models")
    assert mtls_server.http("/readyz")[0] == 200
    # Strangers at the door are no news.
    assert "handshake" not in mtls_server.output.lower()


def test_files_that_do_not_fit_are_named_at_the_start(tiny_model, cache, authority, pair, tmp_path):
    other = authority.issue("other")
    for settings, words in (
        ({"tls_cert_file": pair.cert, "tls_key_file": other.key}, "KEY_VALUES_MISMATCH"),
        ({"tls_cert_file": pair.key, "tls_key_file": pair.key}, str(pair.key)),
        (
            {"tls_cert_file": pair.cert, "tls_key_file": pair.key, "tls_client_ca_file": pair.key},
            "POLARVEC_TLS_CLIENT_CA_FILE",
        ),
    ):
        done = run_serve(cache, model=tiny_model, **settings)
        assert done.returncode == 1 and words in done.stderr
        assert "Traceback" not in done.stderr
