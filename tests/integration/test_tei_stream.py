"""The bulk call of tei.v1 against a real server: order, flow control, and how it ends."""

import threading
import time

import grpc
import numpy as np
import pytest
import tei_wire as wire
from server_process import wait_until
from tei_calls import LONG, TEXT, told


@pytest.fixture
def channel(server):
    with grpc.insecure_channel(server.target) as channel:
        yield channel


def test_a_stream_keeps_the_order_of_its_items(tiny_server):
    texts = [f"문서 {number} " + "가나다 " * (number * 37 % 90) for number in range(300)]
    requests = [wire.make("EmbedRequest", inputs=text, dimensions=33 + number % 7) for number, text in enumerate(texts)]
    with grpc.insecure_channel(tiny_server.target) as channel:
        answers = list(wire.call(channel, "Embed/EmbedStream")(iter(requests), timeout=100))
        assert [answer.metadata.compute_chars for answer in answers] == [len(text) for text in texts]
        assert [len(answer.embeddings) for answer in answers] == [request.dimensions for request in requests]
        for number in (0, 1, 98, 99, 299):
            alone = wire.call(channel, "Embed/Embed")(requests[number], timeout=30)
            assert answers[number].metadata.compute_tokens == alone.metadata.compute_tokens
            np.testing.assert_allclose(answers[number].embeddings, alone.embeddings, atol=1e-5)


def test_each_item_of_a_stream_has_its_own_options(channel):
    requests = [
        wire.make("EmbedRequest", inputs=TEXT, dimensions=32),
        wire.make("EmbedRequest", inputs=LONG, truncate=True),
        wire.make("EmbedRequest", inputs=TEXT, normalize=False),
        wire.make("EmbedRequest", inputs=TEXT),
    ] * 3
    call = wire.call(channel, "Embed/EmbedStream")(iter(requests), timeout=60)
    answers = list(call)
    # Their costs stand in each answer; headers would have to come before the first.
    assert not [key for key, _ in call.initial_metadata() if key.startswith("x-")]
    assert [len(answer.embeddings) for answer in answers] == [32, 384, 384, 384] * 3
    norms = np.array([np.linalg.norm(answer.embeddings) for answer in answers]).reshape(3, 4)
    np.testing.assert_allclose(norms[:, [0, 1, 3]], 1, rtol=1e-5)
    assert (abs(norms[:, 2] - 1) > 0.1).all()


def test_a_stream_answers_each_item_without_waiting_for_the_next(channel):
    answered = threading.Event()

    def requests():
        for _ in range(3):
            yield wire.make("EmbedRequest", inputs=TEXT)
            assert answered.wait(30)
            answered.clear()

    count = 0
    for _ in wire.call(channel, "Embed/EmbedStream")(requests(), timeout=60):
        count += 1
        answered.set()
    assert count == 3


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        ({"inputs": LONG}, "TEXT_TOO_LONG"),
        ({"inputs": ""}, "EMPTY_TEXT"),
        ({"inputs": TEXT, "truncation_direction": 7}, "INVALID_FIELD"),
        ({"inputs": TEXT, "prompt_name": "poem"}, "UNKNOWN_PROMPT"),
        ({"inputs": TEXT, "dimensions": 0}, "UNSUPPORTED_DIMENSIONS"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_the_first_bad_item_ends_a_stream_after_the_answers_before_it(channel, bad, reason):
    requests = [wire.make("EmbedRequest", inputs=f"문서 {number}") for number in range(40)]
    requests[25] = wire.make("EmbedRequest", **bad)
    chars = []
    with pytest.raises(grpc.RpcError) as caught:
        for answer in wire.call(channel, "Embed/EmbedStream")(iter(requests), timeout=60):
            chars.append(answer.metadata.compute_chars)
    assert chars == [len(request.inputs) for request in requests[:25]]
    assert told(caught.value)[:2] == (grpc.StatusCode.INVALID_ARGUMENT, reason)


def test_bytes_that_are_no_message_end_a_stream_after_the_answers_before_them(channel):
    good = wire.make("EmbedRequest", inputs=TEXT).SerializeToString()
    answers = []
    with pytest.raises(grpc.RpcError) as caught:
        for answer in channel.stream_stream("/tei.v1.Embed/EmbedStream")(iter([good, b"\x0a\xff", good]), timeout=30):
            answers.append(answer)
    assert len(answers) == 1
    assert told(caught.value)[:2] == (grpc.StatusCode.INVALID_ARGUMENT, "MALFORMED_MESSAGE")


def test_a_reader_that_waits_holds_the_sender_back(tiny_server):
    """A sender without an end stands still while nobody reads its answers, and goes on when somebody does."""
    sent = 0
    # Blanks make bytes but no tokens: what is held back is not the encoder.
    text = f"배경{' ' * 4000}색"

    def requests():
        nonlocal sent
        while True:
            sent += 1
            yield wire.make("EmbedRequest", inputs=text)

    # Without the probe, which finds a fast network and makes windows of megabytes for it.
    with grpc.insecure_channel(tiny_server.target, options=[("grpc.http2.bdp_probe", 0)]) as channel:
        answers = wire.call(channel, "Embed/EmbedStream")(requests(), timeout=100)
        before = -1
        while sent > before:
            before = sent
            assert before < 20_000
            time.sleep(1)
        assert before > 1
        while sent == before:
            next(answers)
        cancelled = 'polarvec_requests_total{code="CANCELLED",method="tei.v1.Embed/EmbedStream"}'
        before = tiny_server.counted(cancelled)
        answers.cancel()
        wait_until(lambda: tiny_server.metric(cancelled) == before + 1, 10, "the stream is over")
        wait_until(lambda: tiny_server.metric("polarvec_held_tokens") == 0, 10, "nothing is held for it")


def test_a_stream_ends_at_its_deadline(channel):
    def requests():
        yield wire.make("EmbedRequest", inputs=TEXT)
        threading.Event().wait(3)

    with pytest.raises(grpc.RpcError) as caught:
        list(wire.call(channel, "Embed/EmbedStream")(requests(), timeout=1))
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
