"""embed_stream: bulk in bounded memory, where a bad text spoils only itself."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import numpy as np
import polarvec
import pytest
from grpc import StatusCode
from polarvec import StreamItem
from polarvec_proto.v1 import embedding_pb2 as pb
from unit.scripted_server import DIMENSIONS, RunningServer, ScriptedServer, status, vector

TEXTS = [f"passage {number:03}" for number in range(100)]


def check(items: list[StreamItem], texts: list[str]) -> None:
    """Every text is there once, with its own vector or, if it is bad, with its own error."""
    assert sorted(item.index for item in items) == list(range(len(texts)))
    for item in items:
        if "BAD" in texts[item.index]:
            assert item.embedding is None
            assert isinstance(item.error, polarvec.InvalidRequest)
            assert item.error.text_index == item.index
        else:
            assert item.error is None
            np.testing.assert_array_equal(item.embedding, vector(texts[item.index]))
            assert item.fingerprint == "f1"
            assert item.token_count == min(64, len(texts[item.index]))


def shuffled_delays(scripted: RunningServer) -> None:
    """Answers overtake each other."""
    generator = random.Random(7)
    scripted.servicer.delay_of = lambda _: generator.uniform(0, 0.02)


@pytest.mark.parametrize("batch_size", [1, 7, 32, 1000])
def test_items_come_in_input_order(client: Any, scripted: RunningServer, batch_size: int) -> None:
    shuffled_delays(scripted)
    items = list(client.embed_stream(iter(TEXTS), input_type="document", batch_size=batch_size))
    assert [item.index for item in items] == list(range(100))
    check(items, TEXTS)


def test_unordered_items_come_as_they_are_done(client: Any, scripted: RunningServer) -> None:
    scripted.servicer.delay_of = lambda text: 0.3 if text == TEXTS[0] else 0.0
    items = list(client.embed_stream(TEXTS, input_type="document", batch_size=10, ordered=False))
    assert items[0].index != 0
    assert {item.index for item in items[-10:]} == set(range(10))
    check(items, TEXTS)


def test_no_text_gives_no_item_at_once(client: Any) -> None:
    started = time.monotonic()
    assert list(client.embed_stream([], input_type="document")) == []
    assert time.monotonic() - started < 2


@pytest.mark.parametrize("ordered", [True, False])
def test_texts_that_are_all_refused_here_come_at_once(client: Any, ordered: bool) -> None:
    started = time.monotonic()
    items = list(client.embed_stream(["\ud800"] * 2000, input_type="document", ordered=ordered))
    assert [item.index for item in items if item.error] == list(range(2000))
    assert time.monotonic() - started < 5


@pytest.mark.parametrize("bad", [[0], [99], [5, 6], [3, 33, 34, 60], list(range(100))])
def test_bad_texts_spoil_only_themselves(client: Any, scripted: RunningServer, bad: list[int]) -> None:
    shuffled_delays(scripted)
    texts = [f"BAD {text}" if index in bad else text for index, text in enumerate(TEXTS)]
    items = list(client.embed_stream(texts, input_type="document", batch_size=16))
    assert [item.index for item in items] == list(range(100))
    check(items, texts)


def test_text_that_cannot_be_sent_spoils_only_itself(client: Any, scripted: RunningServer) -> None:
    scripted.servicer.limits.max_text_bytes = 40
    texts = [*TEXTS[:5], "\ud800", *TEXTS[5:10], "가" * 14, *TEXTS[10:]]
    items = list(client.embed_stream(texts, input_type="document"))
    surrogate, too_long = items[5].error, items[11].error
    assert surrogate is not None
    assert too_long is not None
    assert (surrogate.reason, surrogate.field) == ("INVALID_TEXT", "texts[5]")
    assert (too_long.reason, too_long.field, too_long.metadata["byte_count"]) == ("TEXT_TOO_LONG", "texts[11]", "42")
    assert sum(item.error is None for item in items) == 100


def test_wrong_type_names_the_index(client: Any) -> None:
    items = client.embed_stream(["a", "b", 3], input_type="document")
    with pytest.raises(TypeError, match=r"texts\[2\] is of type int"):
        list(items)


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"input_type": "passage"}, polarvec.InvalidRequest),
        ({"batch_size": 0}, polarvec.InvalidRequest),
        ({"encoding": "f8"}, polarvec.InvalidRequest),
        ({"timeout_s": 0}, polarvec.InvalidRequest),
        ({"pace": 1}, TypeError),
    ],
)
@pytest.mark.parametrize("kind", [polarvec.Client, polarvec.AsyncClient])
def test_wrong_option_is_refused_at_once(kind: Any, options: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        kind("localhost:1").embed_stream(TEXTS, **{"input_type": "document", **options})


@pytest.mark.parametrize(
    ("encoding", "shape"), [("float16", (DIMENSIONS,)), ("binary", (DIMENSIONS // 8,)), ("int8", (DIMENSIONS,))]
)
def test_encodings(client: Any, encoding: str, shape: tuple[int, ...]) -> None:
    items = list(client.embed_stream(TEXTS[:3], input_type="document", encoding=encoding))
    for item, text in zip(items, TEXTS, strict=False):
        if encoding == "int8":
            assert item.embedding.values.shape == shape
            np.testing.assert_allclose(item.embedding.to_float32(), vector(text), atol=5e-3)
        else:
            assert item.embedding.shape == shape


def test_input_is_read_only_as_far_as_answers_are_taken(make_client: Any, scripted: RunningServer) -> None:
    read = 0

    def endless() -> Iterator[str]:
        nonlocal read
        while True:
            read += 1
            yield f"text {read}"

    client = make_client(scripted.target, max_in_flight=2)
    items = client.embed_stream(endless(), input_type="document", batch_size=5)
    window = 5 * 4 * 2
    for taken in range(1, 200):
        assert next(items).index == taken - 1
        assert read <= taken + window
    time.sleep(0.2)
    assert read <= 199 + window
    items.close()


def test_abandoned_iterator_ends_the_call_and_its_thread(client: Any, scripted: RunningServer) -> None:
    items = client.embed_stream(iter(TEXTS * 100), input_type="document")
    next(items)
    items.close()
    assert not [thread for thread in threading.enumerate() if thread.name == "polarvec-stream"]
    client.embed_queries("still usable")


def test_sync_client_closed_during_a_stream_says_so(scripted: RunningServer) -> None:
    client = polarvec.Client(scripted.target)
    items = client.embed_stream(iter(TEXTS * 100), input_type="document")
    next(items)
    scripted.servicer.delay_s = 60
    threading.Timer(0.2, client.close).start()
    with pytest.raises(RuntimeError, match="closed during the call"):
        list(items)


async def test_async_client_closed_during_a_stream_says_so(scripted: RunningServer) -> None:
    client = polarvec.AsyncClient(scripted.target)
    items = client.embed_stream(iter(TEXTS * 100), input_type="document")
    await anext(items)
    scripted.servicer.delay_s = 60
    rest = asyncio.create_task(_all(items))
    await asyncio.sleep(0.2)
    await client.close()
    # Not CancelledError: nobody cancelled the task.
    with pytest.raises(RuntimeError, match="closed during the call"):
        await rest


async def _all(items: AsyncIterator[StreamItem]) -> list[StreamItem]:
    return [item async for item in items]


def test_error_of_the_input_reaches_the_caller(client: Any) -> None:
    def broken() -> Iterator[str]:
        yield "a"
        raise OSError("disk")

    with pytest.raises(OSError, match="disk"):
        list(client.embed_stream(broken(), input_type="document"))


def test_item_with_more_tokens_than_a_call_may_hold_is_halved(client: Any, scripted: RunningServer) -> None:
    scripted.servicer.limits.max_token_count = 100  # 11 tokens a text in truth, 7 in the estimate.
    items = list(client.embed_stream(TEXTS, input_type="document"))
    check(items, TEXTS)


def test_item_is_sent_again_when_the_encoder_was_away(client: Any, scripted: RunningServer) -> None:
    away = status(StatusCode.UNAVAILABLE, "ENCODER_UNAVAILABLE", retry_after_s=0.1)
    scripted.servicer.item_faults.extend([away] * 3)
    items = list(client.embed_stream(TEXTS, input_type="document", batch_size=10))
    check(items, TEXTS)
    assert scripted.servicer.items_read == 13


def test_item_that_never_succeeds_gets_its_error(client: Any, scripted: RunningServer) -> None:
    away = status(StatusCode.UNAVAILABLE, "ENCODER_UNAVAILABLE", retry_after_s=0.01)
    scripted.servicer.item_faults.extend([away] * 4)
    items = list(client.embed_stream(TEXTS[:2], input_type="document", batch_size=10))
    assert [type(item.error) for item in items] == [polarvec.Unavailable] * 2
    assert scripted.servicer.items_read == 4


def test_item_that_meets_a_full_server_waits_for_room(client: Any, scripted: RunningServer) -> None:
    full = status(StatusCode.RESOURCE_EXHAUSTED, "OVERLOADED", retry_after_s=0.02)
    scripted.servicer.item_faults.extend([full] * 9)
    items = list(client.embed_stream(TEXTS[:10], input_type="document", batch_size=10))
    check(items, TEXTS[:10])
    assert scripted.servicer.items_read == 10


def test_item_waits_for_room_no_longer_than_the_timeout(client: Any, scripted: RunningServer) -> None:
    full = status(StatusCode.RESOURCE_EXHAUSTED, "OVERLOADED", retry_after_s=0.1)
    scripted.servicer.item_faults.extend([full] * 1000)
    items = list(client.embed_stream(TEXTS[:2], input_type="document", batch_size=10, timeout_s=1))
    assert [type(item.error) for item in items] == [polarvec.Overloaded] * 2
    assert 4 < scripted.servicer.items_read <= 11


def test_call_that_a_full_server_refuses_is_made_again_later(client: Any, scripted: RunningServer) -> None:
    full = status(StatusCode.RESOURCE_EXHAUSTED, "OVERLOADED", retry_after_s=0.2)
    scripted.servicer.fail_next("EmbedStream", full, full)
    started = time.monotonic()
    check(list(client.embed_stream(TEXTS, input_type="document")), TEXTS)
    assert time.monotonic() - started >= 0.4
    assert scripted.servicer.count("EmbedStream") == 3


def test_call_that_stays_refused_is_given_up(client: Any, scripted: RunningServer) -> None:
    full = status(StatusCode.RESOURCE_EXHAUSTED, "OVERLOADED", retry_after_s=30)
    scripted.servicer.fail_next("EmbedStream", *[full] * 100)
    with pytest.raises(polarvec.Overloaded):
        list(client.embed_stream(TEXTS, input_type="document", timeout_s=0.5))


def test_error_of_an_item_that_names_no_text_goes_to_all_of_it(client: Any, scripted: RunningServer) -> None:
    scripted.servicer.item_faults.append(status(StatusCode.INVALID_ARGUMENT, "UNSUPPORTED_DIMENSIONS"))
    items = list(client.embed_stream(TEXTS, input_type="document", batch_size=50))
    assert [item.error.reason if item.error else "" for item in items] == ["UNSUPPORTED_DIMENSIONS"] * 50 + [""] * 50


@pytest.mark.parametrize("breaks", [[0], [3], [1, 0, 2]])
def test_broken_call_goes_on_in_a_new_one(client: Any, scripted: RunningServer, breaks: list[int]) -> None:
    shuffled_delays(scripted)
    scripted.servicer.break_stream_after.extend(breaks)
    items = list(client.embed_stream(TEXTS, input_type="document", batch_size=7))
    assert [item.index for item in items] == list(range(100))
    check(items, TEXTS)
    assert scripted.servicer.count("EmbedStream") == len(breaks) + 1


def test_job_survives_a_restart_of_the_server(make_client: Any) -> None:
    texts = TEXTS * 20
    with RunningServer(ScriptedServer(delay_s=0.02)) as first:
        client = make_client(first.target, timeout_s=20)
        stream = client.embed_stream(iter(texts), input_type="document", batch_size=5)
        items = [next(stream) for _ in range(100)]
    taken: list[StreamItem] = []
    reader = threading.Thread(target=lambda: taken.extend(stream))
    reader.start()
    time.sleep(1.5)  # More than four quick attempts bridge.
    with RunningServer(ScriptedServer(), port=first.port):
        reader.join(20)
    assert [item.index for item in items + taken] == list(range(2000))
    check(items + taken, texts)


def test_job_is_given_up_when_the_server_stays_away(make_client: Any) -> None:
    with RunningServer(ScriptedServer(delay_s=0.02)) as server:
        client = make_client(server.target, timeout_s=1)
        stream = client.embed_stream(iter(TEXTS * 20), input_type="document", batch_size=5)
        next(stream)
    with pytest.raises(polarvec.Unavailable):
        list(stream)


def test_call_that_breaks_again_and_again_is_given_up(client: Any, scripted: RunningServer) -> None:
    scripted.servicer.break_stream_after.extend([0] * 40)
    with pytest.raises(polarvec.Unavailable, match="scripted break"):
        list(client.embed_stream(TEXTS, input_type="document", timeout_s=1))
    assert scripted.servicer.count("EmbedStream") > 2


def test_refused_call_is_raised(client: Any, scripted: RunningServer) -> None:
    scripted.servicer.fail_next("EmbedStream", status(StatusCode.PERMISSION_DENIED, "PERMISSION_DENIED"))
    with pytest.raises(polarvec.PermissionDenied):
        list(client.embed_stream(TEXTS, input_type="document"))


def test_silent_server_ends_the_job(client: Any, scripted: RunningServer) -> None:
    scripted.servicer.delay_s = 30
    started = time.monotonic()
    with pytest.raises(polarvec.DeadlineExceeded, match=r"No answer came for 0\.3 s"):
        list(client.embed_stream(TEXTS, input_type="document", timeout_s=0.3))
    assert time.monotonic() - started < 3


def test_caller_who_takes_a_break_is_not_a_silent_server(client: Any) -> None:
    items = client.embed_stream(iter(TEXTS * 20), input_type="document", batch_size=4, timeout_s=0.5)
    taken = [next(items)]
    time.sleep(1)
    taken.extend(items)
    assert len(taken) == 2000


def test_changed_model_ends_the_job(client: Any, scripted: RunningServer) -> None:
    def change(response: pb.EmbedResponse) -> None:
        response.fingerprint = f"f{scripted.servicer.items_read}"

    scripted.servicer.change = change
    scripted.servicer.delay_s = 0.05
    with pytest.raises(polarvec.ServerError, match="model changed"):
        for _ in client.embed_stream(TEXTS * 30, input_type="document", batch_size=2):
            pass


async def test_async_input_is_read_lazily(scripted: RunningServer) -> None:
    async def source() -> AsyncIterator[str]:
        for text in TEXTS:
            yield text

    async with polarvec.AsyncClient(scripted.target) as client:
        items = [item async for item in client.embed_stream(source(), input_type="document", batch_size=9)]
    check(items, TEXTS)
