"""Several servers behind one client: calls in turn, past those in trouble; bulk jobs over all of them."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import numpy as np
import polarvec
import pytest
from grpc import StatusCode
from polarvec._endpoints import Rotation
from unit.dns_server import DnsServer
from unit.scripted_server import RunningServer, ScriptedServer, status, vector

TEXTS = [f"passage {number:03}" for number in range(100)]


@pytest.fixture
def servers() -> Iterator[list[RunningServer]]:
    """Three scripted servers."""
    with ExitStack() as stack:
        yield [stack.enter_context(RunningServer(ScriptedServer())) for _ in range(3)]


@pytest.fixture
def many(make_client: Callable[..., Any], servers: list[RunningServer]) -> Any:
    """A client of all three."""
    return make_client([server.target for server in servers], timeout_s=10.0)


@pytest.fixture
def dead() -> Iterator[str]:
    """A port that is taken and does not listen: connections are refused."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{bound.getsockname()[1]}"


@pytest.fixture
def mute() -> Iterator[str]:
    """A port that listens and never says a word."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(16)
        yield f"127.0.0.1:{listening.getsockname()[1]}"


def counts(servers: list[RunningServer], rpc: str = "Embed") -> list[int]:
    return [server.servicer.count(rpc) for server in servers]


def check_all(items: list[polarvec.StreamItem], texts: list[str]) -> None:
    assert [item.index for item in items] == list(range(len(texts)))
    for item, text in zip(items, texts, strict=True):
        np.testing.assert_array_equal(item.embedding, vector(text))


def test_calls_go_to_the_servers_in_turn(many: Any, servers: list[RunningServer]) -> None:
    for text in TEXTS[:9]:
        np.testing.assert_array_equal(many.embed_queries(text), vector(text))
    assert counts(servers) == [3, 3, 3]


def test_batches_of_one_list_go_to_all_servers(many: Any, servers: list[RunningServer]) -> None:
    for server in servers:
        server.servicer.limits.max_text_count = 10
    np.testing.assert_array_equal(many.embed_documents(TEXTS), np.stack([vector(text) for text in TEXTS]))
    assert sum(counts(servers)) == 10
    assert min(counts(servers)) >= 3


def test_names_and_addresses_go_together(make_client: Any, servers: list[RunningServer]) -> None:
    client = make_client([f"localhost:{servers[0].port}", servers[1].target, f"dns:///localhost:{servers[2].port}"])
    for text in TEXTS[:6]:
        client.embed_queries(text)
    assert counts(servers) == [2, 2, 2]


def test_server_that_is_away_is_passed_over(make_client: Any, servers: list[RunningServer], dead: str) -> None:
    client = make_client([dead, servers[0].target, servers[1].target], timeout_s=10)
    for text in TEXTS[:20]:
        client.embed_queries(text)
    assert sum(counts(servers[:2])) == 20
    assert abs(servers[0].servicer.count("Embed") - servers[1].servicer.count("Embed")) <= 2


def test_server_that_never_answers_is_passed_over(make_client: Any, servers: list[RunningServer], mute: str) -> None:
    client = make_client([mute, servers[0].target], timeout_s=9)
    started = time.monotonic()
    for text in TEXTS[:10]:
        client.embed_queries(text)
    assert counts(servers[:1]) == [10]
    assert time.monotonic() - started < 9  # gRPC alone would wait 20 s for the first connection.


def test_server_that_comes_back_takes_calls_again(make_client: Any, servers: list[RunningServer]) -> None:
    with RunningServer(ScriptedServer()) as first:
        client = make_client([first.target, servers[0].target], timeout_s=10)
        client.embed_queries("a")
        client.embed_queries("b")
        assert counts([first, servers[0]]) == [1, 1]
    for text in TEXTS[:10]:
        client.embed_queries(text)
    assert counts([servers[0]]) == [11]
    with RunningServer(ScriptedServer(), port=first.port) as second:
        until = time.monotonic() + 10
        while not second.servicer.count("Embed") and time.monotonic() < until:
            client.embed_queries("c")
            time.sleep(0.01)
        assert second.servicer.count("Embed") > 0


def test_server_whose_encoder_is_away_hands_over(many: Any, servers: list[RunningServer]) -> None:
    away = status(StatusCode.UNAVAILABLE, "ENCODER_UNAVAILABLE", retry_after_s=30)
    servers[0].servicer.fail_next("Embed", away)
    many.embed_queries("a")
    assert counts(servers) == [1, 1, 0]


def test_full_server_hands_over_and_is_left_alone(many: Any, servers: list[RunningServer]) -> None:
    full = status(StatusCode.RESOURCE_EXHAUSTED, "OVERLOADED", retry_after_s=30)
    servers[1].servicer.fail_next("Embed", *[full] * 10)
    for text in TEXTS[:9]:
        many.embed_queries(text)
    assert counts(servers)[1] == 1
    assert sum(counts(servers)) == 10


def test_full_servers_are_waited_for(many: Any, servers: list[RunningServer]) -> None:
    for server, delay_s in zip(servers, (30, 0.4, 30), strict=True):
        full = status(StatusCode.RESOURCE_EXHAUSTED, "OVERLOADED", retry_after_s=delay_s)
        server.servicer.fail_next("Embed", full)
    many.embed_queries("a")
    assert counts(servers) == [1, 2, 1]


def test_servers_that_are_all_away_are_an_error(make_client: Any, dead: str) -> None:
    with pytest.raises(polarvec.Unavailable, match="check the target"):
        make_client([dead, dead], timeout_s=2).embed_queries("a")


def test_wrong_request_is_asked_once(many: Any, servers: list[RunningServer]) -> None:
    with pytest.raises(polarvec.InvalidRequest):
        many.embed_queries("BAD")
    assert sum(counts(servers)) == 1


def test_servers_with_different_models_do_not_mix(many: Any, servers: list[RunningServer]) -> None:
    def change(response: Any) -> None:
        response.fingerprint = "another"

    servers[1].servicer.change = change
    for server in servers:
        server.servicer.limits.max_text_count = 10
    with pytest.raises(polarvec.ServerError, match="do not go together"):
        many.embed_documents(TEXTS)
    with pytest.raises(polarvec.ServerError, match="do not go together"):
        list(many.embed_stream(TEXTS, input_type="document", batch_size=5))


def test_stream_uses_all_servers_and_keeps_the_order(many: Any, servers: list[RunningServer]) -> None:
    for server, delay_s in zip(servers, (0.0, 0.01, 0.02), strict=True):
        server.servicer.delay_s = delay_s
    check_all(list(many.embed_stream(TEXTS, input_type="document", batch_size=5)), TEXTS)
    assert counts(servers, "EmbedStream") == [1, 1, 1]
    assert sum(server.servicer.items_read for server in servers) == 20
    assert min(server.servicer.items_read for server in servers) > 0


def test_stream_gives_more_to_the_faster_server(make_client: Any, servers: list[RunningServer]) -> None:
    servers[1].servicer.delay_s = 0.3
    client = make_client([server.target for server in servers[:2]], max_in_flight=1)
    texts = TEXTS * 5
    items = list(client.embed_stream(texts, input_type="document", batch_size=5, ordered=False))
    check_all(sorted(items, key=lambda item: item.index), texts)
    assert servers[0].servicer.items_read > 2 * servers[1].servicer.items_read


def test_stream_goes_on_when_a_server_breaks(many: Any, servers: list[RunningServer]) -> None:
    servers[1].servicer.break_stream_after.extend([2, 0, 1])
    check_all(list(many.embed_stream(TEXTS * 5, input_type="document", batch_size=5)), TEXTS * 5)


def test_stream_goes_on_when_a_server_dies(make_client: Any, servers: list[RunningServer]) -> None:
    servers[0].servicer.delay_s = 0.01
    with RunningServer(ScriptedServer(delay_s=0.01)) as dying:
        client = make_client([dying.target, servers[0].target], timeout_s=10)
        stream = client.embed_stream(TEXTS * 10, input_type="document", batch_size=5)
        items = [next(stream) for _ in range(50)]
        assert dying.servicer.items_read > 0
    check_all([*items, *stream], TEXTS * 10)


def test_stream_goes_around_a_server_that_is_away(make_client: Any, servers: list[RunningServer], dead: str) -> None:
    client = make_client([dead, servers[0].target], timeout_s=9)
    check_all(list(client.embed_stream(TEXTS, input_type="document", batch_size=5)), TEXTS)


def test_stream_goes_on_where_one_server_hangs(make_client: Any, servers: list[RunningServer]) -> None:
    client = make_client([server.target for server in servers[:2]], timeout_s=1.0)
    client.model()
    servers[1].servicer.delay_s = 60
    check_all(list(client.embed_stream(TEXTS, input_type="document", batch_size=5)), TEXTS)
    assert servers[1].servicer.items_read > 0


def test_stream_ends_when_every_server_is_away(make_client: Any, servers: list[RunningServer]) -> None:
    with RunningServer(ScriptedServer(delay_s=0.02)) as one, RunningServer(ScriptedServer(delay_s=0.02)) as other:
        client = make_client([one.target, other.target], timeout_s=1)
        stream = client.embed_stream(iter(TEXTS * 20), input_type="document", batch_size=5)
        next(stream)
    with pytest.raises(polarvec.Unavailable):
        list(stream)


def test_name_with_several_addresses_shares_calls_out(make_client: Any) -> None:
    with RunningServer(ScriptedServer()) as first:
        with (
            RunningServer(ScriptedServer(), first.port, host="127.0.0.2") as second,
            DnsServer(["127.0.0.1", "127.0.0.2"]) as names,
        ):
            client = make_client(f"dns://127.0.0.1:{names.port}/polarvec.test:{first.port}", timeout_s=10)
            until = time.monotonic() + 10
            while not (first.servicer.count("Embed") and second.servicer.count("Embed")):  # Both are connected.
                assert time.monotonic() < until
                client.embed_queries("a")
            before = counts([first, second])
            for text in TEXTS[:10]:
                client.embed_queries(text)
            after = counts([first, second])
            assert [now - then for then, now in zip(before, after, strict=True)] == [5, 5]


@pytest.mark.parametrize(
    ("targets", "error"),
    [([], polarvec.InvalidRequest), (["localhost", "http://x"], polarvec.InvalidRequest), (["a", 1], TypeError)],
    ids=["none", "one wrong", "no str"],
)
def test_list_that_cannot_work_is_refused(make_client: Any, targets: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="give"):
        make_client(targets)


def test_repr_names_the_targets() -> None:
    assert repr(polarvec.Client(["a:1", "b"])) == "Client(['a:1', 'b:50051'])"


class Clock:
    """Seconds that a test moves."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


def test_pause_grows_with_failures_and_ends_with_an_answer() -> None:
    clock = Clock()
    rotation = Rotation(2, clock=clock)
    for pause_s in (0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 10, 10):
        rotation.failed(0)
        clock.now_s += pause_s - 0.01
        assert not rotation.is_free(0)
        clock.now_s += 0.02
        assert rotation.is_free(0)
    rotation.answered(0)
    assert rotation.is_free(0)
    rotation.failed(0)
    clock.now_s += 0.11
    assert rotation.is_free(0)


def test_endpoint_after_its_pause_gets_one_call() -> None:
    clock = Clock()
    rotation = Rotation(3, clock=clock)
    rotation.failed(1)
    assert [rotation.choose() for _ in range(4)] == [0, 2, 0, 2]
    clock.now_s += 0.2
    assert [rotation.choose() for _ in range(6)].count(1) == 1
    rotation.answered(1)
    assert [rotation.choose() for _ in range(6)].count(1) == 2


def test_all_paused_gives_the_one_that_is_back_first() -> None:
    rotation = Rotation(3, clock=Clock())
    for endpoint, pause_s in enumerate((9, 3, 6)):
        rotation.refused(endpoint, pause_s)
    assert rotation.choose() == 1
    assert rotation.choose(avoid=1) == 2
    assert not rotation.has_free()
    assert rotation.wait_s() == pytest.approx(3)


def test_threads_share_the_turns() -> None:
    rotation = Rotation(4)
    chosen: list[int] = []

    def work() -> None:
        for _ in range(1000):
            chosen.append(rotation.choose())

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [chosen.count(endpoint) for endpoint in range(4)] == [2000] * 4
