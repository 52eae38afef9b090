"""TLS, mTLS and API keys of the client, against servers that ask for them."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import polarvec
import pytest
from polarvec import Tls
from unit.certificates import Certificate, make_certificate
from unit.scripted_server import RunningServer, ScriptedServer, vector


@pytest.fixture(scope="module")
def root() -> Certificate:
    return make_certificate("root")


@pytest.fixture(scope="module")
def stranger() -> Certificate:
    return make_certificate("stranger")


@pytest.fixture(scope="module")
def own(root: Certificate) -> Certificate:
    """The client's certificate."""
    return make_certificate("client", issuer=root)


def serving(root: Certificate, *, asks_for_certificate: bool, **names: tuple[str, ...]) -> RunningServer:
    certificate = make_certificate("server", issuer=root, **names)
    credentials = grpc.ssl_server_credentials(
        [(certificate.key, certificate.pem)],
        root_certificates=root.pem if asks_for_certificate else None,
        require_client_auth=asks_for_certificate,
    )
    return RunningServer(ScriptedServer(), credentials=credentials)


@pytest.fixture
def tls_server(root: Certificate) -> Iterator[RunningServer]:
    with serving(root, asks_for_certificate=False, addresses=("127.0.0.1",)) as server:
        yield server


@pytest.fixture
def mtls_server(root: Certificate) -> Iterator[RunningServer]:
    with serving(root, asks_for_certificate=True, addresses=("127.0.0.1",)) as server:
        yield server


def check_every_way(client: Any) -> None:
    np.testing.assert_array_equal(client.embed_queries("a"), vector("a"))
    (item,) = client.embed_stream(["b"], input_type="document")
    np.testing.assert_array_equal(item.embedding, vector("b"))


def test_server_is_trusted_by_its_root(
    make_client: Callable[..., Any], tls_server: RunningServer, root: Certificate
) -> None:
    check_every_way(make_client(tls_server.target, tls=Tls(ca=root.pem)))


def test_several_servers_speak_tls(
    make_client: Callable[..., Any], tls_server: RunningServer, root: Certificate
) -> None:
    with serving(root, asks_for_certificate=False, hosts=("localhost",)) as second:
        client = make_client([tls_server.target, f"localhost:{second.port}"], tls=Tls(ca=root.pem))
        for text in "abcd":
            client.embed_queries(text)
        assert tls_server.servicer.count("Embed") == second.servicer.count("Embed") == 2


def test_files_serve_as_well_as_bytes(
    make_client: Callable[..., Any], mtls_server: RunningServer, root: Certificate, own: Certificate, tmp_path: Path
) -> None:
    (tmp_path / "ca.pem").write_bytes(root.pem)
    (tmp_path / "own.pem").write_bytes(own.pem)
    (tmp_path / "own.key").write_bytes(own.key)
    tls = Tls(ca=tmp_path / "ca.pem", certificate=str(tmp_path / "own.pem"), key=tmp_path / "own.key")
    check_every_way(make_client(mtls_server.target, tls=tls))


def test_client_shows_its_certificate(
    make_client: Callable[..., Any], mtls_server: RunningServer, root: Certificate, own: Certificate
) -> None:
    check_every_way(make_client(mtls_server.target, tls=Tls(ca=root.pem, certificate=own.pem, key=own.key)))


@pytest.mark.parametrize("shown", ["none", "a stranger's"])
def test_client_without_the_right_certificate_stays_outside(
    make_client: Callable[..., Any], mtls_server: RunningServer, root: Certificate, stranger: Certificate, shown: str
) -> None:
    tls = Tls(ca=root.pem) if shown == "none" else Tls(ca=root.pem, certificate=stranger.pem, key=stranger.key)
    with pytest.raises(polarvec.Unavailable, match=r"client certificate|cannot be reached"):
        make_client(mtls_server.target, tls=tls, timeout_s=1.5).embed_queries("a")
    assert mtls_server.servicer.seen == []


def test_server_name_may_differ_from_the_target(make_client: Callable[..., Any], root: Certificate) -> None:
    with serving(root, asks_for_certificate=False, hosts=("polarvec.internal",)) as server:
        check_every_way(make_client(server.target, tls=Tls(ca=root.pem, server_name="polarvec.internal")))


@pytest.mark.parametrize("wrong", ["root", "name", "none"])
def test_server_that_is_not_trusted_gets_no_text_and_the_error_says_what_to_check(
    make_client: Callable[..., Any], tls_server: RunningServer, root: Certificate, stranger: Certificate, wrong: str
) -> None:
    tls = {"root": Tls(ca=stranger.pem), "name": Tls(ca=root.pem, server_name="another.example"), "none": Tls()}[wrong]
    with pytest.raises(polarvec.Unavailable, match="ca and server_name of tls") as caught:
        make_client(tls_server.target, tls=tls).embed_queries("secret")
    assert caught.value.reason == "TLS_FAILED"
    assert tls_server.servicer.seen == []


def test_plain_server_is_told_apart(make_client: Callable[..., Any], scripted: RunningServer) -> None:
    with pytest.raises(polarvec.Unavailable, match="check that the server speaks it"):
        make_client(scripted.target, tls=Tls()).embed_queries("a")


def test_untrusted_server_is_passed_over(
    make_client: Callable[..., Any], tls_server: RunningServer, root: Certificate, stranger: Certificate
) -> None:
    with serving(stranger, asks_for_certificate=False, addresses=("127.0.0.1",)) as untrusted:
        client = make_client([untrusted.target, tls_server.target], tls=Tls(ca=root.pem))
        for text in "abcd":
            client.embed_queries(text)
        assert tls_server.servicer.count("Embed") == 4


def test_key_reaches_every_method(
    make_client: Callable[..., Any], tls_server: RunningServer, root: Certificate
) -> None:
    tls_server.servicer.api_key = "key-1"
    client = make_client(tls_server.target, tls=Tls(ca=root.pem), api_key="key-1")
    check_every_way(client)
    client.rank("a", ["b"])
    client.tokenize("a", input_type="raw")
    client.models()
    assert {call.rpc for call in tls_server.servicer.seen} == {
        "Embed", "EmbedStream", "GetModel", "Rank", "Tokenize", "ListModels",
    }  # fmt: skip
    assert {call.metadata["authorization"] for call in tls_server.servicer.seen} == {"Bearer key-1"}


@pytest.mark.parametrize("key", [None, "key-2"])
def test_wrong_key_is_refused_once(
    make_client: Callable[..., Any], tls_server: RunningServer, root: Certificate, key: str | None
) -> None:
    tls_server.servicer.api_key = "key-1"
    client = make_client(tls_server.target, tls=Tls(ca=root.pem), api_key=key)
    with pytest.raises(polarvec.Unauthenticated):
        client.embed_queries("a")
    assert tls_server.servicer.count("Embed") == 1
    with pytest.raises(polarvec.Unauthenticated):
        list(client.embed_stream(["a"], input_type="document"))


@pytest.mark.parametrize(
    ("tls", "complaint"),
    [
        (Tls(ca="/no/such/ca.pem"), r"'/no/such/ca\.pem', cannot be read \(No such file"),
        (Tls(ca=b"not pem"), r"Tls\.ca is no PEM"),
        (Tls(ca=polarvec.__file__), "is no PEM"),
        (Tls(certificate=b"-----BEGIN CERTIFICATE-----"), "without the other"),
        (Tls(key=b"-----BEGIN PRIVATE KEY-----"), "without the other"),
    ],
    ids=["no file", "no pem", "file is no pem", "no key", "no certificate"],
)
def test_tls_that_cannot_work_is_refused_at_once(make_client: Callable[..., Any], tls: Tls, complaint: str) -> None:
    with pytest.raises(polarvec.InvalidRequest, match=complaint):
        make_client("localhost", tls=tls)


def test_two_ways_to_encrypt_are_refused(make_client: Callable[..., Any]) -> None:
    with pytest.raises(polarvec.InvalidRequest, match="give one of them"):
        make_client("localhost", tls=Tls(), credentials=grpc.ssl_channel_credentials())


def test_repr_hides_the_private_key(own: Certificate) -> None:
    assert "PRIVATE" not in repr(Tls(certificate="own.pem", key=own.key))


def test_tls_can_be_sent_to_another_process(own: Certificate) -> None:
    tls = Tls(ca="ca.pem", certificate=own.pem, key=own.key, server_name="polarvec.internal")
    assert pickle.loads(pickle.dumps(tls)) == tls
