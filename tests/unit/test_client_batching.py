"""Splitting a long list by the server's limits: what is sent, in what order, how much at once."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest
from grpc import StatusCode
from hypothesis import given
from hypothesis import strategies as st
from polarvec import InvalidRequest, Limits, NotFound
from polarvec._batching import Batcher, batches, estimated_token_count
from unit.scripted_server import RunningServer, status, vector

TEXTS = [f"text {number:02}" for number in range(20)]


@given(
    texts=st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=60), max_size=40),
    max_text_count=st.integers(0, 6),
    max_token_count=st.integers(0, 60),
    max_request_bytes=st.integers(0, 200),
)
def test_batches_keep_order_and_fit(
    texts: list[str], max_text_count: int, max_token_count: int, max_request_bytes: int
) -> None:
    limits = Limits(max_text_count, max_token_count, max_request_bytes)
    result = list(batches(texts, Batcher(limits, max_token_count=20, fixed_bytes=10)))
    assert [text for batch in result for text in batch.texts] == texts
    assert [index for batch in result for index in batch.indexes] == list(range(len(texts)))
    for batch in result:
        if len(batch.texts) > 1:  # A text that fits no call stands alone.
            assert len(batch.texts) <= (max_text_count or len(texts))
            tokens = sum(estimated_token_count(text, 20) for text in batch.texts)
            assert tokens <= (max_token_count or tokens)
            size = 10 + sum(len(text.encode()) + 6 for text in batch.texts)
            assert size <= (max_request_bytes or size)


@pytest.mark.parametrize(
    ("limits", "batch_count"),
    [
        ({"max_text_count": 6}, 4),
        ({"max_text_count": 20}, 1),
        ({}, 1),
        ({"max_request_bytes": 66 + 13 * 5 + 2}, 4),  # 64 for the request, 2 for its fields, 13 a text.
        ({"max_text_count": 10, "max_token_count": 200}, 2),  # 7 tokens a text in truth, 5 in the estimate.
    ],
)
def test_long_list_is_split_by_the_limits_and_comes_back_in_order(
    client: Any, scripted: RunningServer, limits: dict[str, int], batch_count: int
) -> None:
    for name, value in limits.items():
        setattr(scripted.servicer.limits, name, value)
    scripted.servicer.delay_of = lambda text: 0.1 if text == TEXTS[0] else 0.0  # The first answer comes last.
    embeddings = client.embed_documents(TEXTS)
    np.testing.assert_array_equal(embeddings, np.stack([vector(text) for text in TEXTS]))
    sent = scripted.servicer.texts_seen()
    assert len(sent) == batch_count
    assert sorted(text for texts in sent for text in texts) == TEXTS


def test_calls_stay_small_even_if_the_server_allows_more(client: Any, scripted: RunningServer) -> None:
    texts = ["x" * 160] * 300  # 64 tokens each in the estimate, as many as the model reads.
    client.embed_documents(texts)
    assert [len(sent) for sent in scripted.servicer.texts_seen()] == [128, 128, 44]


def test_limits_are_fetched_once_a_model(client: Any, scripted: RunningServer) -> None:
    client.embed_documents(TEXTS)
    client.embed_queries(TEXTS)
    client.embed_queries(TEXTS, model="tiny")
    client.tokenize(TEXTS, input_type="raw")
    assert scripted.servicer.count("GetModel") == 2


def test_unknown_model_is_not_found(client: Any) -> None:
    with pytest.raises(NotFound) as caught:
        client.embed_documents(TEXTS, model="other")
    assert caught.value.metadata["models"] == "tiny"


def test_batch_with_more_tokens_than_estimated_is_halved(client: Any, scripted: RunningServer) -> None:
    scripted.servicer.limits.max_token_count = 100  # 140 tokens in truth, 100 in the estimate.
    embeddings = client.embed_documents(TEXTS)
    np.testing.assert_array_equal(embeddings, np.stack([vector(text) for text in TEXTS]))
    assert sorted(map(len, scripted.servicer.texts_seen())) == [10, 10, 20]


def test_oversize_text_is_sent_alone_and_gets_the_servers_error(client: Any, scripted: RunningServer) -> None:
    scripted.servicer.limits.max_request_bytes = 200
    texts = [*TEXTS[:3], "BAD" * 100, *TEXTS[3:6]]
    with pytest.raises(InvalidRequest, match=r"texts\[3\] is bad") as caught:
        client.embed_documents(texts)
    assert caught.value.reason == "TEXT_TOO_LONG"
    assert [texts[3]] in scripted.servicer.texts_seen()


def test_error_names_the_callers_index_not_the_batchs(client: Any, scripted: RunningServer) -> None:
    scripted.servicer.limits.max_text_count = 4
    with pytest.raises(InvalidRequest, match=r"texts\[9\] is bad") as caught:
        client.embed_documents([*TEXTS[:9], "BAD", *TEXTS[9:]])
    error = caught.value
    assert (error.field, error.text_index, error.metadata["index"]) == ("texts[9]", 9, "9")
    assert error.request_id == "r-failed"
    assert error.__cause__ is not None


@pytest.mark.parametrize("max_in_flight", [1, 3])
def test_calls_in_flight_are_bounded(make_client: Any, scripted: RunningServer, max_in_flight: int) -> None:
    scripted.servicer.limits.max_text_count = 1
    scripted.servicer.delay_s = 0.03
    client = make_client(scripted.target, max_in_flight=max_in_flight)
    client.embed_documents(TEXTS)
    assert scripted.servicer.max_in_flight == max_in_flight


def test_failure_cancels_the_calls_in_flight(client: Any, scripted: RunningServer) -> None:
    scripted.servicer.limits.max_text_count = 1
    scripted.servicer.delay_of = lambda text: 0.0 if text == "BAD" else 5.0
    started = time.monotonic()
    with pytest.raises(InvalidRequest):
        client.embed_documents(["BAD", *TEXTS])
    assert time.monotonic() - started < 2
    while scripted.servicer.in_flight:  # The server notices the cancellations.
        assert time.monotonic() - started < 4
        time.sleep(0.01)
    assert scripted.servicer.count("Embed") <= 4


def test_message_over_the_transports_limit_is_an_invalid_request(client: Any, scripted: RunningServer) -> None:
    with pytest.raises(InvalidRequest, match="too big for one call"):
        client.embed_documents("x" * 2**21)


def test_progress_counts_texts(client: Any, scripted: RunningServer, capsys: pytest.CaptureFixture[str]) -> None:
    scripted.servicer.limits.max_text_count = 5
    client.embed_documents(TEXTS, progress=True)
    assert "20/20" in capsys.readouterr().err


def test_progress_without_tqdm_warns(client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "tqdm.auto", None)
    with pytest.warns(UserWarning, match=r"polarvec\[progress\]"):
        assert len(client.embed_documents(TEXTS, progress=True)) == 20


def test_tokenize_is_split_too(client: Any, scripted: RunningServer) -> None:
    scripted.servicer.limits.max_text_count = 8
    result = client.tokenize(TEXTS, input_type="raw", include_ids=True)
    assert [len(texts) for texts in scripted.servicer.texts_seen("Tokenize")] == [8, 8, 4]
    assert [bytes(text.token_ids).decode() for text in result] == TEXTS


def test_overloaded_batch_is_retried_in_its_place(client: Any, scripted: RunningServer) -> None:
    scripted.servicer.limits.max_text_count = 5
    scripted.servicer.fail_next("Embed", status(StatusCode.RESOURCE_EXHAUSTED, "OVERLOADED", retry_after_s=0.05))
    embeddings = client.embed_documents(TEXTS)
    np.testing.assert_array_equal(embeddings, np.stack([vector(text) for text in TEXTS]))
    assert scripted.servicer.count("Embed") == 5
