import gc
import tracemalloc

import numpy as np
import pytest
from polarvec_server.pipeline.vector_cache import VectorCache, entry_bytes

D = 16


def text(number):
    return np.arange(number, number + 5, dtype=np.int32).tobytes()


def vector(number, dimensions=D):
    return np.full((1, dimensions), number + 0.1, np.float32)


def cache_of(entries, fingerprint="f"):
    return VectorCache(fingerprint, D, entries * entry_bytes(D))


def put(cache, *numbers):
    for number in numbers:
        cache.put([text(number)], vector(number), cache.generation)


def known(cache, numbers):
    return [number for number in numbers if cache.get(text(number)) is not None]


def test_the_least_recently_used_goes_first():
    cache = cache_of(3)
    put(cache, 1, 2, 3)
    cache.get(text(1))
    put(cache, 4)
    assert known(cache, [1, 2, 3, 4]) == [1, 3, 4]
    # Asked for in that order just now.
    put(cache, 5, 6)
    assert known(cache, range(1, 7)) == [4, 5, 6]
    assert cache.evictions == 3


def test_a_vector_put_again_evicts_nothing():
    cache = cache_of(2)
    put(cache, 1, 2, 2, 1)
    assert (cache.evictions, cache.entry_count) == (0, 2)


def test_the_budget_is_kept():
    cache = VectorCache("f", D, 10_000)
    put(cache, *range(500))
    assert 10_000 - entry_bytes(D) < cache.byte_count <= 10_000
    assert cache.entry_count * entry_bytes(D) == cache.byte_count


def test_an_entry_larger_than_the_budget_is_not_kept():
    cache = VectorCache("f", D, entry_bytes(D) - 1)
    put(cache, 1)
    assert cache.entry_count == 0 and cache.get(text(1)) is None


def test_vectors_are_copies_bit_by_bit():
    cache, given = cache_of(2), np.random.default_rng(3).normal(size=(2, D)).astype(np.float32)
    expected = given.tobytes()
    cache.put([text(1), text(2)], given, 0)
    given[:] = 0
    assert cache.get(text(1)).tobytes() + cache.get(text(2)).tobytes() == expected


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_not_kept(bad):
    cache, vectors = cache_of(5), np.ones((3, D), np.float32)
    vectors[1, 7] = bad
    cache.put([text(1), text(2), text(3)], vectors, 0)
    assert known(cache, [1, 2, 3]) == [1, 3]


def test_a_vector_without_length_is_not_kept():
    cache = cache_of(5)
    cache.put([text(1)], np.zeros((1, D), np.float32), 0)
    assert cache.entry_count == 0


def test_a_cleared_cache_takes_nothing_that_was_begun_before():
    cache = cache_of(5)
    put(cache, 1)
    begun = cache.generation
    cache.clear()
    cache.put([text(2)], vector(2), begun)
    assert cache.entry_count == cache.byte_count == 0
    put(cache, 3)
    assert known(cache, [1, 2, 3]) == [3]


def test_the_fingerprint_is_in_the_key():
    first, second = cache_of(1, "aaaa"), cache_of(1, "bbbb")
    assert first._key(text(1)) != second._key(text(1))
    assert first._key(text(1)) != first._key(text(2))


@pytest.mark.parametrize("entries", [1_000, 11_000, 20_000])
@pytest.mark.parametrize("dimensions", [64, 1024])
def test_bytes_are_counted_honestly(entries, dimensions):
    texts = [text(number) for number in range(entries)]
    vectors = np.ones((entries, dimensions), np.float32)
    gc.collect()
    tracemalloc.start()
    try:
        cache = VectorCache("f", dimensions, 1 << 30)
        cache.put(texts, vectors, 0)
        gc.collect()
        taken = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert 0.8 * cache.byte_count < taken < 1.05 * cache.byte_count
