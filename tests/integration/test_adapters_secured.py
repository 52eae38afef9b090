"""The adapters and the command against a server that wants a certificate and a key."""

import asyncio
import json

import pytest
from certificates import Authority
from polarvec import PermissionDenied, Tls, Unauthenticated
from polarvec._commands import app
from server_process import ServerProcess
from typer.testing import CliRunner

KEY, OTHERS_KEY = "adapters-key-0123456789", "others-key-0123456789"


@pytest.fixture(scope="module")
def tls(tmp_path_factory):
    """What a trusted client brings, and the server's own pair."""
    authority = Authority(tmp_path_factory.mktemp("certificates"), "root")
    pair, caller = authority.issue("embed.example"), authority.issue("caller")
    return Tls(ca=authority.file, certificate=caller.cert, key=caller.key), pair


@pytest.fixture(scope="module")
def secured(tiny_model, cache, tls, tmp_path_factory):
    keys = tmp_path_factory.mktemp("keys") / "keys"
    keys.write_text(f"adapters {KEY}\nothers {OTHERS_KEY} another-model\n")
    process = ServerProcess(
        tiny_model,
        cache,
        workers=1,
        tls_cert_file=tls[1].cert,
        tls_key_file=tls[1].key,
        tls_client_ca_file=tls[0].ca,
        api_keys_file=keys,
    ).wait_ready()
    yield process
    process.stop()


def test_langchain_brings_certificate_and_key(secured, tls):
    from polarvec.langchain import PolarvecEmbeddings

    embeddings = PolarvecEmbeddings(secured.target, tls=tls[0], api_key=KEY)
    assert embeddings.embed_query("a") == pytest.approx(asyncio.run(embeddings.aembed_query("a")), abs=1e-6)
    with pytest.raises(Unauthenticated):
        PolarvecEmbeddings(secured.target, tls=tls[0]).embed_query("a")
    with pytest.raises(PermissionDenied):
        PolarvecEmbeddings(secured.target, tls=tls[0], api_key=OTHERS_KEY).embed_query("a")


def test_llama_index_brings_certificate_and_key(secured, tls):
    from polarvec.llama_index import PolarvecEmbedding

    embedding = PolarvecEmbedding(secured.target, tls=tls[0], api_key=KEY)
    assert len(embedding.get_text_embedding("a")) == 64
    with pytest.raises(Unauthenticated):
        PolarvecEmbedding(secured.target, tls=tls[0], api_key="wrong-key-0123456789").get_text_embedding("a")


def test_haystack_brings_certificate_and_key_after_it_was_stored(secured, tls, monkeypatch):
    from polarvec.haystack import PolarvecTextEmbedder

    monkeypatch.setenv("POLARVEC_API_KEY", KEY)
    embedder = PolarvecTextEmbedder(secured.target, tls=tls[0])
    stored = json.dumps(embedder.to_dict())
    assert KEY not in stored
    assert len(PolarvecTextEmbedder.from_dict(json.loads(stored)).run("a")["embedding"]) == 64


def test_mteb_brings_certificate_and_key(secured, tls):
    from polarvec.mteb import PolarvecEncoder

    assert PolarvecEncoder(secured.target, tls=tls[0], api_key=KEY).mteb_model_meta.embed_dim == 64


def test_the_command_brings_certificate_and_key(secured, tls):
    options = ["--tls-ca", str(tls[0].ca), "--tls-certificate", str(tls[0].certificate), "--tls-key", str(tls[0].key)]

    def rank(key):
        environment = {"POLARVEC_TARGET": secured.target, "POLARVEC_API_KEY": key}
        return CliRunner().invoke(app, ["rank", "--query", "a", "b", "--json", *options], env=environment)

    assert rank(KEY).exit_code == 0, rank(KEY).output
    for key in ("wrong-key-0123456789", OTHERS_KEY, None):
        refused = rank(key)
        assert (refused.exit_code, refused.stdout) == (2, "")
        assert refused.stderr.startswith("polarvec: ") and refused.stderr.count("\n") == 1
        assert not {KEY, OTHERS_KEY} & set(refused.output.split())
