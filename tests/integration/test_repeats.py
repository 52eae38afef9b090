"""Repeats on a real Triton: what is counted, and that answers stay what they are."""

import asyncio
import time

import numpy as np
import pytest
from polarvec import AsyncClient, Client
from server_process import ServerProcess, wait_until


@pytest.fixture(scope="module")
def caching(tiny_model, cache):
    process = ServerProcess(tiny_model, cache, precision="f32", workers=1, cache_bytes=1_000_000).wait_ready()
    yield process
    process.stop()


def repeated(server, source):
    return server.metric(f'polarvec_repeated_texts_total{{model="tiny",source="{source}"}}')


def test_repeats_in_a_call_are_encoded_once(tiny_server):
    encoded, skipped = tiny_server.counted("polarvec_encoded_texts_total"), repeated(tiny_server, "call")
    texts = [f"되풀이 {number % 3}" for number in range(30)]
    with Client(tiny_server.target) as client:
        vectors = client.embed_documents(texts)
        singly = np.stack([client.embed_documents(text) for text in texts[:3]])
    assert all(vectors[row].tobytes() == vectors[row % 3].tobytes() for row in range(30))
    assert (vectors[:3] * singly).sum(axis=1).min() > 0.99999
    assert tiny_server.counted("polarvec_encoded_texts_total") == encoded + 6
    assert repeated(tiny_server, "call") == skipped + 27


def test_equal_calls_in_flight_share_a_computation(tiny_server):
    shared = repeated(tiny_server, "in_flight")

    async def crowd():
        async with AsyncClient(tiny_server.target) as client:
            return await asyncio.gather(*(client.embed_documents("모두 같은 글") for _ in range(64)))

    vectors = asyncio.run(crowd())
    assert len({vector.tobytes() for vector in vectors}) == 1
    wait_until(lambda: repeated(tiny_server, "in_flight") > shared, 10, "counted")


def test_a_kept_vector_is_the_very_same_and_takes_no_time(caching):
    texts = [f"기억 {number}" for number in range(20)]
    with Client(caching.target) as client:
        first = client.embed_documents(texts)
        again = client.embed_detailed(texts, input_type="document")
    assert again.embeddings.tobytes() == first.tobytes()
    assert [(call.queue_ms, call.inference_ms) for call in again.calls] == [(0, 0)]
    wait_until(lambda: repeated(caching, "cache") >= 20, 10, "counted")
    assert caching.counted("polarvec_cache_misses_total") >= 20
    assert caching.metric("polarvec_cache_entries") >= 20


def test_the_budget_holds(caching):
    texts = [f"많은 글 {number}" for number in range(3000)]
    with Client(caching.target) as client:
        for start in range(0, 3000, 500):
            client.embed_documents(texts[start : start + 500])
    wait_until(lambda: caching.metric("polarvec_cache_evictions_total") > 0, 10, "something had to go")
    assert 990_000 < caching.metric("polarvec_cache_bytes") <= 1_000_000


def test_canaries_are_computed_each_time(caching):
    before = caching.triton_metric("nv_inference_request_success")
    time.sleep(3)
    assert caching.triton_metric("nv_inference_request_success") >= before + 2


def test_the_cache_is_emptied_when_the_encoder_dies_under_a_call(caching):
    with Client(caching.target) as client:
        client.embed_documents("이전 부호기")
        wait_until(lambda: caching.metric("polarvec_cache_entries") > 0, 10, "kept")
        caching.triton().kill()
        # Its pack finds the encoder gone, and is sent again to the next one: begun too early to be kept.
        client.embed_documents("그때 온 글")
        wait_until(lambda: caching.metric("polarvec_cache_entries") == 0, 10, "forgotten")
        misses = caching.counted("polarvec_cache_misses_total")
        client.embed_documents("이전 부호기")
        wait_until(lambda: caching.metric("polarvec_cache_misses_total") == misses + 1, 10, "computed anew")
