"""A second call where the first is slow: the first answer counts, the other call ends, and few calls are doubled."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import polarvec
import pytest
from grpc import StatusCode
from polarvec._budget import TokenBucket
from unit.scripted_server import RunningServer, ScriptedServer, status, vector

# Twenty calls earn one hedge.
EARNING_CALLS = 20


@pytest.fixture
def other() -> Iterator[RunningServer]:
    """A second scripted server."""
    with RunningServer(ScriptedServer()) as server:
        yield server


@pytest.fixture
def hedging(make_client: Callable[..., Any], scripted: RunningServer, other: RunningServer) -> Any:
    """A client of both servers that has earned one hedge."""
    client = make_client([scripted.target, other.target], timeout_s=10.0, hedge_after_s=0.2)
    for number in range(EARNING_CALLS):
        client.embed_queries(f"earn {number}")
    scripted.servicer.seen.clear()
    other.servicer.seen.clear()
    return client


def ends_soon(condition: Callable[[], bool]) -> bool:
    until = time.monotonic() + 5
    while not condition() and time.monotonic() < until:
        time.sleep(0.01)
    return condition()


def test_slow_server_is_overtaken_and_its_call_ends(
    hedging: Any, scripted: RunningServer, other: RunningServer
) -> None:
    scripted.servicer.delay_s = 60
    np.testing.assert_array_equal(hedging.embed_queries("a"), vector("a"))
    assert scripted.servicer.texts_seen() == other.servicer.texts_seen() == [["a"]]
    assert ends_soon(lambda: scripted.servicer.in_flight == 0)


def test_server_that_was_overtaken_is_passed_over(hedging: Any, scripted: RunningServer, other: RunningServer) -> None:
    """It may hang, and there is not a hedge for every call."""
    scripted.servicer.delay_s = 60
    hedging.embed_queries("a")
    hedging.embed_queries("b")
    assert scripted.servicer.texts_seen() == [["a"]]
    assert other.servicer.texts_seen() == [["a"], ["b"]]


def test_first_call_may_still_win(hedging: Any, scripted: RunningServer, other: RunningServer) -> None:
    scripted.servicer.delay_s, other.servicer.delay_s = 0.5, 60
    np.testing.assert_array_equal(hedging.embed_queries("a"), vector("a"))
    assert other.servicer.count("Embed") == 1
    assert ends_soon(lambda: other.servicer.in_flight == 0)


def test_slow_refusal_is_an_answer(hedging: Any, scripted: RunningServer, other: RunningServer) -> None:
    scripted.servicer.delay_s, other.servicer.delay_s = 0.5, 60
    with pytest.raises(polarvec.InvalidRequest):
        hedging.embed_queries("BAD")
    assert other.servicer.count("Embed") == 1
    assert ends_soon(lambda: other.servicer.in_flight == 0)


def test_error_that_another_server_may_not_have_waits_for_it(
    make_client: Callable[..., Any], other: RunningServer
) -> None:
    dying = RunningServer(ScriptedServer()).__enter__()
    stop = threading.Timer(0.7, dying.__exit__)
    try:
        client = make_client([dying.target, other.target], timeout_s=10.0, hedge_after_s=0.2)
        for number in range(EARNING_CALLS):
            client.embed_queries(f"earn {number}")
        dying.servicer.delay_s, other.servicer.delay_s = 60, 1.0
    finally:
        stop.start()
    np.testing.assert_array_equal(client.embed_queries("a"), vector("a"))
    stop.join()
    assert other.servicer.texts_seen().count(["a"]) == 1


def test_wrong_request_is_not_made_twice(hedging: Any, scripted: RunningServer, other: RunningServer) -> None:
    with pytest.raises(polarvec.InvalidRequest):
        hedging.embed_queries("BAD")
    assert scripted.servicer.count("Embed") + other.servicer.count("Embed") == 1


def test_overload_of_the_first_is_retried_as_ever(hedging: Any, scripted: RunningServer, other: RunningServer) -> None:
    full = status(StatusCode.RESOURCE_EXHAUSTED, "OVERLOADED", retry_after_s=0.05)
    scripted.servicer.fail_next("Embed", full)
    other.servicer.fail_next("Embed", full)
    np.testing.assert_array_equal(hedging.embed_queries("a"), vector("a"))
    assert scripted.servicer.count("Embed") + other.servicer.count("Embed") == 3


def test_batches_are_hedged_too(hedging: Any, scripted: RunningServer, other: RunningServer) -> None:
    hedging.model()
    scripted.servicer.limits.max_text_count = other.servicer.limits.max_text_count = 2
    texts = [f"text {number}" for number in range(8)]

    def quick_the_second_time(text: str) -> float:
        seen = [first for first, *_ in (*scripted.servicer.texts_seen(), *other.servicer.texts_seen())]
        return 60.0 if text == "text 0" and seen.count(text) == 1 else 0.0

    scripted.servicer.delay_of = other.servicer.delay_of = quick_the_second_time
    np.testing.assert_array_equal(hedging.embed_documents(texts), np.stack([vector(text) for text in texts]))


def test_alone_it_hedges_at_the_same_server(make_client: Callable[..., Any], scripted: RunningServer) -> None:
    client = make_client(scripted.target, hedge_after_s=0.2)
    for number in range(EARNING_CALLS):
        client.embed_queries(f"earn {number}")
    scripted.servicer.delay_of = lambda text: 60.0 if scripted.servicer.texts_seen().count([text]) == 1 else 0.0
    np.testing.assert_array_equal(client.embed_queries("a"), vector("a"))
    assert scripted.servicer.texts_seen()[-2:] == [["a"], ["a"]]


def test_at_most_one_call_in_twenty_is_hedged(make_client: Callable[..., Any], scripted: RunningServer) -> None:
    client = make_client(scripted.target, hedge_after_s=0.001)
    scripted.servicer.delay_s = 0.01
    for number in range(100):
        client.embed_queries(f"text {number}")
    assert 100 < scripted.servicer.count("Embed") <= 105


def test_it_is_off_by_default(client: Any, scripted: RunningServer) -> None:
    scripted.servicer.delay_s = 0.02
    for number in range(25):
        client.embed_queries(f"text {number}")
    assert scripted.servicer.count("Embed") == 25


@pytest.mark.parametrize("hedge_after_s", [0, -1, float("nan")])
def test_delay_that_cannot_work_is_refused(make_client: Callable[..., Any], hedge_after_s: float) -> None:
    with pytest.raises(polarvec.InvalidRequest, match="hedge_after_s"):
        make_client("localhost", hedge_after_s=hedge_after_s)


def test_bucket_gives_a_share_of_the_calls() -> None:
    bucket = TokenBucket(per_call=0.05, capacity=2)
    taken = []
    for _ in range(100):
        bucket.book_call()
        taken.append(bucket.take())
    assert taken.count(True) == 5
    for _ in range(1000):
        bucket.book_call()
    assert [bucket.take() for _ in range(4)] == [True, True, False, False]


def test_bucket_fills_with_time() -> None:
    now_s = 0.0
    bucket = TokenBucket(per_call=0, capacity=3, per_s=2, filled=True, clock=lambda: now_s)
    assert [bucket.take() for _ in range(4)] == [True, True, True, False]
    now_s = 1.0
    assert [bucket.take() for _ in range(3)] == [True, True, False]


def test_retries_of_many_threads_are_bounded(scripted: RunningServer) -> None:
    full = status(StatusCode.RESOURCE_EXHAUSTED, "OVERLOADED", retry_after_s=0.001)
    scripted.servicer.fail_next("Embed", *[full] * 100_000)
    started = time.monotonic()
    with polarvec.Client(scripted.target, timeout_s=60) as client, ThreadPoolExecutor(8) as pool:

        def call(number: int) -> bool:
            with pytest.raises(polarvec.Overloaded):
                client.embed_queries(f"text {number}")
            return True

        assert all(pool.map(call, range(200)))
    elapsed_s = time.monotonic() - started
    # 100 to begin with, a fifth of the calls and 10 a second: without the budget each call would go on for 60 s.
    assert 300 <= scripted.servicer.count("Embed") <= 200 + 100 + 40 + 10 * elapsed_s + 1


def test_sync_client_closed_during_a_call_says_so(scripted: RunningServer) -> None:
    scripted.servicer.delay_s = 60
    client = polarvec.Client(scripted.target, hedge_after_s=0.1)
    threading.Timer(0.3, client.close).start()
    with pytest.raises(RuntimeError, match="closed during the call"):
        client.embed_queries("a")


async def test_async_client_closed_during_a_call_says_so(scripted: RunningServer) -> None:
    scripted.servicer.delay_s = 60
    client = polarvec.AsyncClient(scripted.target, hedge_after_s=0.1)
    task = asyncio.create_task(client.embed_queries("a"))
    await asyncio.sleep(0.3)
    await client.close()
    with pytest.raises(RuntimeError, match="closed during the call"):
        await task


async def test_cancelled_task_ends_both_calls(scripted: RunningServer, other: RunningServer) -> None:
    async with polarvec.AsyncClient([scripted.target, other.target], hedge_after_s=0.05) as client:
        for number in range(EARNING_CALLS):
            await client.embed_queries(f"earn {number}")
        scripted.servicer.delay_s = other.servicer.delay_s = 60
        task = asyncio.create_task(client.embed_queries("a"))
        while not (scripted.servicer.in_flight and other.servicer.in_flight):
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        while scripted.servicer.in_flight or other.servicer.in_flight:
            await asyncio.sleep(0.01)
