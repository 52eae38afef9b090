"""Starting and stopping: side by side, in the way of others, with nothing left behind."""

import signal
import socket

import grpc
import psutil
import pytest
from polarvec import Client
from polarvec_proto.v1 import embedding_pb2 as pb
from polarvec_proto.v1 import embedding_pb2_grpc
from server_process import ServerProcess, free_port, run_serve, wait_until


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["SIGINT", "SIGTERM"])
def test_stopping_leaves_nothing_behind(tiny_model, cache, number):
    server = ServerProcess(tiny_model, cache, workers=2).wait_ready()
    processes = server.processes()
    assert len(server.workers()) == 2 and server.leftovers()
    with Client(server.target) as client:
        assert client.embed_queries("안녕").shape == (64,)
    assert server.stop(number) == 0
    assert server.leftovers() == []
    _, alive = psutil.wait_procs(processes, timeout=5)
    assert not alive, alive


def test_servers_run_side_by_side(tiny_server, tiny_model, cache):
    other = ServerProcess(tiny_model, cache, workers=1, openai_port=0).wait_ready()
    try:
        for server in (tiny_server, other):
            with Client(server.target) as client:
                assert client.embed_queries("나란히").shape == (64,)
        ports = [
            {c.laddr.port for w in s.workers() for c in w.net_connections("tcp") if c.status == "LISTEN"}
            for s in (tiny_server, other)
        ]
        assert ports[0] == {tiny_server.grpc_port, tiny_server.http_port, tiny_server.openai_port}
        # The HTTP API is off here.
        assert ports[1] == {other.grpc_port, other.http_port}
    finally:
        assert other.stop() == 0
    with Client(tiny_server.target) as client:
        assert client.embed_queries("아직 있다").shape == (64,)


def test_a_killed_supervisor_takes_its_processes_along_and_the_next_start_cleans_up(tiny_model, cache):
    server = ServerProcess(tiny_model, cache, workers=1).wait_ready()
    processes = server.processes()
    psutil.Process(server.pid).kill()
    server.wait_ended()
    _, alive = psutil.wait_procs(processes, timeout=25)
    assert not alive, alive
    assert server.leftovers()
    following = ServerProcess(tiny_model, cache, workers=1).wait_ready()
    try:
        assert server.leftovers() == []
    finally:
        following.stop()
        server.kill()


@pytest.mark.parametrize("setting", ["grpc_port", "http_port", "openai_port", "triton_metrics_port"])
def test_a_taken_port_is_named(tiny_model, cache, tiny_server, setting):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        probe.listen(1)
        settings = {"grpc_port": 0, "http_port": 0} | {setting: probe.getsockname()[1]}
        settings = {name: port or free_port() for name, port in settings.items()}
        done = run_serve(cache, model=tiny_model, **settings)
    assert done.returncode == 1
    assert f"set POLARVEC_{setting.upper()} to another port" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_port_of_a_running_server_is_not_shared_by_accident(tiny_model, cache, tiny_server):
    done = run_serve(cache, model=tiny_model, grpc_port=tiny_server.grpc_port, http_port=free_port())
    assert done.returncode == 1 and "POLARVEC_GRPC_PORT" in done.stderr


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"model": "no-such-folder/deep/er"}, "no-such-folder"),
        ({"model": "."}, "modules.json"),
        ({"model": "tiny", "engine": "openvino", "precision": "fp8"}, "openvino does not compute in fp8"),
        ({"model": "tiny", "engine": "cuda", "precision": "int8"}, "engine cuda"),
        ({"model": "tiny", "engine": "openvino", "gelu": "tanh"}, "exact GELU only"),
        ({"model": "tiny", "grpc_prot": "1"}, "POLARVEC_GRPC_PORT"),
        ({"model": "tiny,tiny"}, "twice"),
        ({"model": ","}, "no model"),
        ({"model": "tiny", "triton_binary": "/no/such/triton"}, "/no/such/triton"),
        ({"model": "tiny", "host": "nohost.invalid"}, "POLARVEC_HOST is nohost.invalid"),
        ({"model": "tiny", "grpc_port": 42999, "http_port": 42999}, "both 42999"),
        ({"model": "tiny", "http_port": 42999, "openai_port": 42999}, "POLARVEC_OPENAI_PORT are both 42999"),
        ({"model": "tiny", "playground": True}, "set POLARVEC_OPENAI_PORT"),
        ({"model": "tiny", "tls_cert_file": "cert.pem"}, "POLARVEC_TLS_KEY_FILE"),
        ({"model": "tiny", "tls_client_ca_file": "ca.pem"}, "POLARVEC_TLS_CERT_FILE"),
        ({"model": "tiny", "tls_cert_file": "none.pem", "tls_key_file": "none.pem"}, "none.pem"),
        ({"model": "tiny", "api_keys_file": "no-such-file"}, "POLARVEC_API_KEYS_FILE: no-such-file"),
    ],
)
def test_what_cannot_start_says_why_in_a_sentence(tiny_model, cache, settings, sentence, tmp_path):
    done = run_serve(
        cache, **{"grpc_port": free_port(), "http_port": free_port(), "hub_endpoint": "http://127.0.0.1:9"} | settings
    )
    assert done.returncode == 1
    assert sentence in done.stderr
    assert "Traceback" not in done.stdout + done.stderr


def test_triton_listens_nowhere_but_on_its_metrics_port(tiny_server):
    listening = [c.laddr for c in tiny_server.triton().net_connections("tcp") if c.status == psutil.CONN_LISTEN]
    assert [address.ip for address in listening] == ["127.0.0.1"]


def test_a_call_in_progress_is_finished_when_the_server_stops(tiny_model, cache):
    server = ServerProcess(tiny_model, cache, workers=1).wait_ready()
    request = pb.EmbedRequest(
        texts=[f"{number} " + "느린 문서 " * 5000 for number in range(25)],
        input_type=pb.INPUT_TYPE_DOCUMENT,
        truncation=pb.TRUNCATION_END,
    )
    try:
        with grpc.insecure_channel(server.target) as channel:
            call = embedding_pb2_grpc.EmbeddingServiceStub(channel).Embed.future(request, timeout=60)
            wait_until(lambda: server.metric("polarvec_in_flight_tokens") > 0, 30, "the call is on its way")
            assert not call.done()
            assert server.stop(signal.SIGTERM) == 0
            assert list(call.result().token_counts) == [8192] * 25
    finally:
        server.kill()
