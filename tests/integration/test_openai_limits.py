"""The OpenAI door under load, at its deadlines and when callers or the server go away."""

import contextlib
import signal
import threading
import time

import httpx
import openai
import pytest
from server_process import ServerProcess, wait_until

# On the tiny model a second or two of work: each text is cut at 8192 tokens.
SLOW_TEXTS = 8
SLOW = {
    "model": "tiny",
    "input": [f"{number} " + "느린 문서 " * 5000 for number in range(SLOW_TEXTS)],
    "truncation": "end",
}
BULK = {"model": "tiny", "input": [f"{number} " + "문서 " * 2000 for number in range(4)], "truncation": "end"}


@pytest.fixture(scope="module")
def small_server(tiny_model, cache):
    """A bulk share of 10,000 tokens: a call beside a slow one is refused."""
    process = ServerProcess(tiny_model, cache, precision="f32", workers=1, queue_tokens=40_000).wait_ready()
    yield process
    process.stop()


class Caller(threading.Thread):
    """A call in a thread of its own, which can be given up."""

    def __init__(self, url: str, **options) -> None:
        super().__init__()
        self._url, self._options = url, options
        self._client = httpx.Client(timeout=120)
        self.answer: httpx.Response | None = None
        self.error: httpx.TransportError | None = None
        self.start()

    def run(self) -> None:
        try:
            self.answer = self._client.post(f"{self._url}/embeddings", **self._options)
        except httpx.TransportError as error:
            self.error = error

    def end(self) -> httpx.Response | None:
        self.join(120)
        self._client.close()
        return self.answer


@contextlib.contextmanager
def busy(server):
    """A slow call on its way; when the block ends it is waited for."""
    caller = Caller(server.openai_url, json=SLOW)
    wait_until(lambda: server.metric("polarvec_in_flight_tokens") > 0, 30, "the slow call is on its way")
    try:
        yield caller
    finally:
        answer = caller.end()
    assert answer.status_code == 200
    assert answer.json()["usage"]["prompt_tokens"] == SLOW_TEXTS * 8192
    wait_until(lambda: server.metric("polarvec_held_tokens") == 0, 10, "nothing is held")


def test_overload_says_when_to_come_back_and_the_package_does(small_server):
    with busy(small_server):
        refused = httpx.post(f"{small_server.openai_url}/embeddings", json=BULK, timeout=30)
        with openai.OpenAI(base_url=small_server.openai_url, api_key="unused", max_retries=0) as impatient:
            with pytest.raises(openai.RateLimitError) as caught:
                impatient.embeddings.create(model="tiny", input=BULK["input"], extra_body={"truncation": "end"})
            # A query has a share of its own.
            assert len(impatient.embeddings.create(model="tiny:query", input="질문").data) == 1
        with openai.OpenAI(base_url=small_server.openai_url, api_key="unused", max_retries=50) as patient:
            answer = patient.embeddings.create(model="tiny", input=BULK["input"], extra_body={"truncation": "end"})
    assert refused.status_code == 429
    milliseconds = int(refused.headers["retry-after-ms"])
    assert 40 <= milliseconds <= 36_000
    assert int(refused.headers["retry-after"]) * 1000 >= milliseconds
    assert refused.headers["x-should-retry"] == "true"
    assert caught.value.body["code"] == "rate_limit_exceeded" and caught.value.body["type"] == "rate_limit_error"
    assert len(answer.data) == 4


@pytest.mark.parametrize("header", [("x-request-timeout-ms", "300"), ("x-stainless-read-timeout", "0.3")])
def test_a_deadline_of_the_caller_ends_the_call(small_server, header):
    answer = httpx.post(f"{small_server.openai_url}/embeddings", json=SLOW, headers=dict([header]), timeout=60)
    assert answer.status_code == 504
    assert answer.json()["error"]["code"] == "deadline_exceeded"
    assert answer.headers["x-should-retry"] == "false"
    wait_until(lambda: small_server.metric("polarvec_held_tokens") == 0, 20, "its tokens are given back")


@pytest.mark.parametrize("value", ["soon", "nan", ""])
def test_a_deadline_that_is_no_number_counts_as_none(small_server, value):
    body = {"model": "tiny", "input": "짧다"}
    url = f"{small_server.openai_url}/embeddings"
    assert httpx.post(url, json=body, headers={"x-request-timeout-ms": value}, timeout=30).status_code == 200


def test_a_caller_who_goes_away_leaves_nothing_behind(small_server):
    cancelled = 'polarvec_requests_total{code="CANCELLED",method="POST /v1/embeddings"}'
    before = small_server.counted(cancelled)
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(f"{small_server.openai_url}/embeddings", json=SLOW, timeout=1.0)
    wait_until(lambda: small_server.metric(cancelled) == before + 1, 10, "the call is counted as cancelled")
    wait_until(lambda: small_server.metric("polarvec_held_tokens") == 0, 20, "its tokens are given back")


def test_a_body_that_does_not_come_ends_at_the_deadline(small_server):
    def dripping():
        yield b'{"model": "tiny", '
        time.sleep(1.0)
        yield b'"input": "a"}'

    headers = {"x-request-timeout-ms": "200"}
    answer = httpx.post(f"{small_server.openai_url}/embeddings", content=dripping(), headers=headers, timeout=30)
    assert answer.status_code == 504


def test_a_stopping_server_finishes_its_calls(tiny_model, cache):
    server = ServerProcess(tiny_model, cache, precision="f32", workers=1, drain_s=55).wait_ready()
    try:
        caller = Caller(server.openai_url, json=SLOW)
        wait_until(lambda: server.metric("polarvec_in_flight_tokens") > 0, 30, "the call is on its way")
        assert caller.answer is None
        assert server.stop(signal.SIGTERM) == 0
        answer = caller.end()
        assert answer is not None and answer.json()["usage"]["prompt_tokens"] == SLOW_TEXTS * 8192
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"{server.openai_url}/models")
    finally:
        server.kill()


def test_a_call_that_takes_longer_than_draining_may_is_told_to_try_elsewhere(tiny_model, cache):
    server = ServerProcess(tiny_model, cache, precision="f32", workers=1, drain_s=0).wait_ready()
    try:
        caller = Caller(server.openai_url, json=SLOW)
        wait_until(lambda: server.metric("polarvec_in_flight_tokens") > 0, 30, "the call is on its way")
        assert server.stop(signal.SIGTERM) == 0
        answer = caller.end()
        assert answer is not None and answer.status_code == 503
        assert answer.headers["retry-after"] == "1" and answer.json()["error"]["type"] == "server_error"
    finally:
        server.kill()
