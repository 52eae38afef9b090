"""Every status of the server becomes one error of the client's own tree; what is tried again, and for how long."""

from __future__ import annotations

import asyncio
import pickle
import socket
import threading
import time
from typing import Any

import grpc
import polarvec
import pytest
from google.protobuf.any_pb2 import Any as AnyMessage
from google.rpc import code_pb2, status_pb2
from grpc import StatusCode
from hypothesis import given
from hypothesis import strategies as st
from polarvec import _errors
from polarvec._channel import HEALTH, channel_settings
from polarvec._sync_channels import SyncChannels
from polarvec._targets import parse_target
from unit.scripted_server import RunningServer, ScriptedServer, status


@pytest.mark.parametrize(
    ("code", "reason", "expected"),
    [
        (StatusCode.INVALID_ARGUMENT, "EMPTY_TEXT", polarvec.InvalidRequest),
        (StatusCode.OUT_OF_RANGE, "", polarvec.InvalidRequest),
        (StatusCode.NOT_FOUND, "UNKNOWN_MODEL", polarvec.NotFound),
        (StatusCode.UNAUTHENTICATED, "UNAUTHENTICATED", polarvec.Unauthenticated),
        (StatusCode.PERMISSION_DENIED, "PERMISSION_DENIED", polarvec.PermissionDenied),
        (StatusCode.RESOURCE_EXHAUSTED, "QUOTA_EXCEEDED", polarvec.Overloaded),
        (StatusCode.DEADLINE_EXCEEDED, "DEADLINE_EXCEEDED", polarvec.DeadlineExceeded),
        (StatusCode.INTERNAL, "NON_FINITE", polarvec.ServerError),
        (StatusCode.UNKNOWN, "", polarvec.ServerError),
        (StatusCode.UNIMPLEMENTED, "", polarvec.ServerError),
        (StatusCode.FAILED_PRECONDITION, "", polarvec.ServerError),
    ],
)
def test_code_becomes_class(
    client: Any, scripted: RunningServer, code: StatusCode, reason: str, expected: type[Exception]
) -> None:
    scripted.servicer.fail_next("Embed", status(code, reason, message="Do it so.", field="texts[0]", index="0"))
    with pytest.raises(expected, match=r"Do it so\.") as caught:
        client.embed_queries("a")
    error = caught.value
    assert type(error) is expected
    assert isinstance(error.__cause__, grpc.RpcError)
    assert scripted.servicer.count("Embed") == 1
    if reason:
        assert (error.reason, error.field, error.metadata["index"]) == (reason, "texts[0]", "0")
    assert error.request_id


def test_call_that_a_server_breaks_off_is_made_again(client: Any, scripted: RunningServer) -> None:
    scripted.servicer.fail_next("Embed", status(StatusCode.CANCELLED))
    client.embed_queries("a")
    assert scripted.servicer.count("Embed") == 2


def test_errors_travel_between_processes(client: Any, scripted: RunningServer) -> None:
    scripted.servicer.fail_next("Embed", status(StatusCode.INVALID_ARGUMENT, "EMPTY_TEXT", field="texts[0]", index="0"))
    with pytest.raises(polarvec.InvalidRequest) as caught:
        client.embed_queries("a")
    copy = pickle.loads(pickle.dumps(caught.value))
    assert (type(copy), str(copy), vars(copy)) == (polarvec.InvalidRequest, str(caught.value), vars(caught.value))


def test_unavailable_is_retried_by_the_channel(client: Any, scripted: RunningServer) -> None:
    scripted.servicer.fail_next("Embed", *[status(StatusCode.UNAVAILABLE, "ENCODER_UNAVAILABLE")] * 2)
    client.embed_queries("a")
    assert scripted.servicer.count("Embed") == 3


@pytest.mark.parametrize("rpc", ["Rank", "Tokenize", "ListModels", "GetModel"])
def test_every_unary_rpc_is_retried(client: Any, scripted: RunningServer, rpc: str) -> None:
    calls = {
        "Rank": lambda: client.rank("a", ["b"]),
        "Tokenize": lambda: client.tokenize("a", input_type="raw"),
        "ListModels": lambda: client.models(),
        "GetModel": lambda: client.model(),
    }
    scripted.servicer.fail_next(rpc, status(StatusCode.UNAVAILABLE))
    calls[rpc]()
    assert scripted.servicer.count(rpc) == 2


def test_unavailable_is_raised_after_four_attempts(client: Any, scripted: RunningServer) -> None:
    scripted.servicer.fail_next(
        "Embed", *[status(StatusCode.UNAVAILABLE, "ENCODER_UNAVAILABLE", retry_after_s=2.0)] * 9
    )
    with pytest.raises(polarvec.Unavailable) as caught:
        client.embed_queries("a")
    assert scripted.servicer.count("Embed") == 4
    assert (caught.value.reason, caught.value.retry_after_s) == ("ENCODER_UNAVAILABLE", 2.0)


def test_no_server_is_unavailable_and_says_what_to_check(make_client: Any) -> None:
    with socket.socket() as bound:  # A port that is taken and does not listen.
        bound.bind(("127.0.0.1", 0))
        client = make_client(f"127.0.0.1:{bound.getsockname()[1]}", timeout_s=10)
        with pytest.raises(polarvec.Unavailable, match="check the target"):
            client.embed_queries("a")


def test_a_server_that_comes_up_late_is_reached(make_client: Any) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = RunningServer(ScriptedServer(), port)
    late = threading.Timer(1.5, server.__enter__)
    late.start()
    client = make_client(f"127.0.0.1:{port}", timeout_s=20)
    try:
        assert client.embed_queries("a").ndim == 1
    finally:
        late.join()
        server.__exit__()


def test_health_does_not_wait_for_a_server_that_comes_up_late(make_client: Any) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    server = RunningServer(ScriptedServer(), port=port)
    timer = threading.Timer(0.5, server.__enter__)
    timer.start()
    with pytest.raises(polarvec.Unavailable):  # Any other call would get its answer.
        make_client(f"127.0.0.1:{port}").health()
    timer.join()
    server.__exit__()


def test_overloaded_is_retried_after_the_servers_delay(client: Any, scripted: RunningServer) -> None:
    scripted.servicer.fail_next("Embed", *[status(StatusCode.RESOURCE_EXHAUSTED, "OVERLOADED", retry_after_s=0.2)] * 3)
    started = time.monotonic()
    client.embed_queries("a")
    assert scripted.servicer.count("Embed") == 4
    assert 0.6 <= time.monotonic() - started < 2


@pytest.mark.parametrize("delay_s", [5.0, 0.7])
def test_overloaded_is_raised_at_once_if_the_delay_passes_the_deadline(
    client: Any, scripted: RunningServer, delay_s: float
) -> None:
    overloaded = status(StatusCode.RESOURCE_EXHAUSTED, "OVERLOADED", retry_after_s=delay_s)
    scripted.servicer.fail_next("Embed", *[overloaded] * 9)
    started = time.monotonic()
    with pytest.raises(polarvec.Overloaded) as caught:
        client.embed_queries("a", timeout_s=1)
    assert time.monotonic() - started < 1
    assert caught.value.retry_after_s == pytest.approx(delay_s)


def test_deadline_covers_the_waits(client: Any, scripted: RunningServer) -> None:
    overloaded = status(StatusCode.RESOURCE_EXHAUSTED, "OVERLOADED", retry_after_s=0.3)
    scripted.servicer.fail_next("Embed", overloaded)
    client.embed_queries("a", timeout_s=2)
    first, second = (call.remaining_s for call in scripted.servicer.seen)
    assert second < first - 0.29


def test_overloaded_without_delay_is_raised_at_once(client: Any, scripted: RunningServer) -> None:
    scripted.servicer.fail_next("Embed", status(StatusCode.RESOURCE_EXHAUSTED))
    with pytest.raises(polarvec.Overloaded) as caught:
        client.embed_queries("a")
    assert scripted.servicer.count("Embed") == 1
    assert caught.value.retry_after_s is None


def test_server_that_restarts_is_found_again(make_client: Any) -> None:
    with RunningServer(ScriptedServer()) as first:
        client = make_client(first.target)
        client.embed_queries("a")
    with RunningServer(ScriptedServer(), port=first.port) as second:
        client.embed_queries("b")
        assert second.servicer.texts_seen() == [["b"]]


def test_closed_client_says_so(client: Any) -> None:
    client.embed_queries("a")
    client.close()
    client.close()
    with pytest.raises(RuntimeError, match="closed; make a new one"):
        client.embed_queries("a")


def test_sync_client_closed_during_a_call_says_so(scripted: RunningServer) -> None:
    scripted.servicer.delay_s = 5
    client = polarvec.Client(scripted.target)
    threading.Timer(0.3, client.close).start()
    with pytest.raises(RuntimeError, match="closed during the call"):
        client.embed_queries("a")


def test_call_on_a_channel_that_was_just_closed_says_so(scripted: RunningServer) -> None:
    channels = SyncChannels(channel_settings(scripted.target, api_key=None, tls=None, credentials=None))
    method = channels.method(0, HEALTH)
    channels.close()
    with pytest.raises(RuntimeError, match="closed during the call"), channels.in_use():
        method(b"", timeout=5)


async def test_async_client_closed_during_a_call_says_so(scripted: RunningServer) -> None:
    scripted.servicer.delay_s = 5
    client = polarvec.AsyncClient(scripted.target)
    task = asyncio.create_task(client.embed_queries("a"))
    while not scripted.servicer.in_flight:
        await asyncio.sleep(0.01)
    await client.close()
    with pytest.raises(RuntimeError, match="closed during the call"):
        await task


@given(st.binary(max_size=60))
def test_details_that_cannot_be_read_cost_only_themselves(garbage: bytes) -> None:
    broken = status(StatusCode.NOT_FOUND, "UNKNOWN_MODEL", message="No such model.")
    broken.details.append(AnyMessage(type_url="type.googleapis.com/google.rpc.BadRequest", value=garbage))
    error = _errors.from_status(broken)
    assert (type(error), error.message, error.reason) == (polarvec.NotFound, "No such model.", "UNKNOWN_MODEL")


@given(code=st.integers(-1, 40))
def test_any_code_becomes_an_error_of_the_tree(code: int) -> None:
    error = _errors.from_status(status_pb2.Status(code=code))
    assert isinstance(error, polarvec.PolarvecError)
    assert str(error)
    assert (type(error) is polarvec.InvalidRequest) == (code in (code_pb2.INVALID_ARGUMENT, code_pb2.OUT_OF_RANGE))


def test_tree_in_the_docstring_is_the_tree() -> None:
    drawn = {line.split()[1] for line in (_errors.__doc__ or "").splitlines() if line.startswith(("├── ", "└── "))}
    assert drawn == {cls.__name__ for cls in polarvec.PolarvecError.__subclasses__()}


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("localhost", "localhost:50051"),
        (" host:1 ", "host:1"),
        ("[::1]", "[::1]:50051"),
        ("[::1]:443", "[::1]:443"),
        ("dns:///polarvec:50051", "dns:///polarvec:50051"),
        ("dns:///polarvec", "dns:///polarvec:50051"),
        ("dns:///[::1]", "dns:///[::1]:50051"),
        ("unix:/run/polarvec.sock", "unix:/run/polarvec.sock"),
    ],
)
def test_target_is_understood(target: str, expected: str) -> None:
    assert parse_target(target) == expected


@pytest.mark.parametrize(
    "target",
    [
        "",
        "  ",
        "http://host:1",
        "host:1/path",
        "host:",
        "host:http",
        "host:0",
        "host:65536",
        ":1",
        "::1",
        "[::1",
        "a b",
        "a:1,b:2",
    ],
)
def test_target_that_cannot_work_is_refused(make_client: Any, target: str) -> None:
    with pytest.raises(polarvec.InvalidRequest, match="give"):
        make_client(target)


@pytest.mark.parametrize("options", [{"api_key": ""}, {"api_key": "a\nb"}, {"max_in_flight": 0}, {"timeout_s": -1}])
def test_client_refuses_arguments_that_cannot_work(make_client: Any, options: dict[str, Any]) -> None:
    with pytest.raises(polarvec.InvalidRequest):
        make_client("localhost", **options)


@pytest.mark.parametrize("options", [{"api_key": 5}, {"tls": True}, {"max_in_flight": 1.5}, {"target": b"host"}])
def test_client_refuses_arguments_of_the_wrong_type(make_client: Any, options: dict[str, Any]) -> None:
    with pytest.raises(TypeError, match="is of type"):
        make_client(**{"target": "localhost", **options})


def test_repr_does_not_show_the_key() -> None:
    assert repr(polarvec.Client("host", api_key="secret")) == "Client('host:50051')"
    assert repr(polarvec.AsyncClient("host", api_key="secret")) == "AsyncClient('host:50051')"
