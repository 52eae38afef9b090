"""Infer requests of the CPU engine: side by side, one run inside another, and given back whatever happens."""

import itertools

import numpy as np
import pytest
from encoder_folders import VOCABULARY, write_model
from polarvec_encoder.architecture import read_architecture
from polarvec_encoder.batch import PackedBatch
from polarvec_encoder.conversion import convert
from polarvec_encoder.engine import encode_all
from polarvec_encoder.engine_openvino import OpenVinoEngine
from polarvec_encoder.hardware import read_hardware
from polarvec_encoder.weights import open_weights

STREAMS = (1, 2, 3)


def batch(lengths, seed=0):
    """Groups of at most 512 tokens, so 500 tokens a text make one group each."""
    rng = np.random.default_rng(seed)
    return PackedBatch.of_texts([rng.integers(3, VOCABULARY, length).tolist() for length in lengths])


LARGE = batch([500, 490, 480, 470, 460, 450, 440])
SMALL = batch([400, 410, 420, 430, 440, 5, 7], seed=1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    write_model(folder)
    return folder


def make(folder, streams, pooling="mean"):
    engine = OpenVinoEngine(folder, read_architecture(folder), pooling, "f32", threads=3, streams=streams)
    assert engine._streams == streams
    return engine


@pytest.fixture(scope="module")
def engines(folder):
    return {streams: make(folder, streams) for streams in STREAMS}


@pytest.fixture(scope="module")
def expected(engines):
    return encode_all(engines[1], LARGE), encode_all(engines[1], SMALL)


@pytest.fixture(params=STREAMS)
def engine(request, engines):
    return engines[request.param]


def assert_same(found, expected):
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)


def test_a_batch_takes_several_groups(engine):
    assert len(list(engine.encode(LARGE))) == 7
    assert len(list(engine.encode(SMALL))) >= 5


@pytest.mark.parametrize("pooling", ["cls", "last_token"])
@pytest.mark.parametrize("streams", STREAMS[1:])
def test_streams_give_the_same_vectors(folder, pooling, streams):
    one, more = make(folder, 1, pooling), make(folder, streams, pooling)
    for texts in (LARGE, SMALL, batch([3]), batch([20] * 100)):
        assert_same(encode_all(more, texts), encode_all(one, texts))


def test_a_batch_runs_between_any_two_groups_of_another(engine, expected):
    vectors = np.full_like(expected[0], np.nan)
    for texts, values in engine.encode(LARGE):
        vectors[texts] = values
        assert_same(encode_all(engine, SMALL), expected[1])
    assert_same(vectors, expected[0])


def test_two_batches_in_turns(engine, expected):
    found = [np.full_like(vectors, np.nan) for vectors in expected]
    for steps in itertools.zip_longest(engine.encode(LARGE), engine.encode(SMALL)):
        for vectors, step in zip(found, steps, strict=True):
            if step is not None:
                vectors[step[0]] = step[1]
    assert_same(found[0], expected[0])
    assert_same(found[1], expected[1])


def test_vectors_are_not_overwritten_by_later_groups(engine):
    kept = list(engine.encode(LARGE))
    copies = [values.copy() for _, values in kept]
    encode_all(engine, SMALL)
    for (_, values), copy in zip(kept, copies, strict=True):
        np.testing.assert_array_equal(values, copy)


@pytest.mark.parametrize("taken", [0, 1, 3, 6])
def test_a_batch_that_is_given_up_gives_its_requests_back(engine, expected, taken):
    for _ in range(4):
        groups = engine.encode(LARGE)
        for _ in range(taken):
            next(groups)
        groups.close()
    assert_same(encode_all(engine, SMALL), expected[1])
    for texts, values in engine.encode(LARGE):
        assert_same(values, expected[0][texts])
        assert_same(encode_all(engine, SMALL), expected[1])


class Failing:
    """An infer request of which some calls fail."""

    def __init__(self, request, fails):
        self._request, self._fails = request, fails

    def start_async(self, *arguments, **options):
        if self._fails("start"):
            raise RuntimeError("start failed")
        self._request.start_async(*arguments, **options)

    def wait(self):
        self._request.wait()
        if self._fails("wait"):
            raise RuntimeError("wait failed")

    def __getattr__(self, name):
        return getattr(self._request, name)


@pytest.mark.parametrize("streams", STREAMS)
@pytest.mark.parametrize("call", ["start", "wait"])
@pytest.mark.parametrize("which", [{0}, {2}, set(range(100))], ids=["the first", "the third", "all"])
def test_a_group_that_fails_gives_its_request_back(folder, expected, streams, call, which):
    engine = make(folder, streams)
    counts = dict.fromkeys(("start", "wait"), 0)
    failing = True

    def fails(name):
        counts[name] += 1
        return failing and name == call and counts[name] - 1 in which

    engine._free = [Failing(request, fails) for request in engine._free]
    for _ in range(5):
        counts.update(start=0, wait=0)
        with pytest.raises(RuntimeError, match=f"{call} failed"):
            encode_all(engine, LARGE)
    failing = False
    for texts, values in engine.encode(LARGE):
        assert_same(values, expected[0][texts])
        assert_same(encode_all(engine, SMALL), expected[1])


PRECISIONS = [
    "f32",
    pytest.param(
        "bf16", marks=pytest.mark.skipif(not read_hardware().bf16, reason="this CPU has neither AMX nor AVX512_BF16")
    ),
    pytest.param(
        "int8",
        marks=pytest.mark.skipif(
            not read_hardware().int8, reason="this CPU has neither AVX512_VNNI, AVX_VNNI nor AMX_INT8"
        ),
    ),
]


@pytest.mark.parametrize("precision", PRECISIONS)
def test_weights_kept_in_a_file_give_the_same_vectors(folder, tmp_path, precision):
    """Made by the first start and mapped by the second; without a folder bf16 is rounded by OpenVINO."""
    architecture, found = read_architecture(folder), []
    for cache_dir in (None, tmp_path, tmp_path):
        engine = OpenVinoEngine(folder, architecture, "mean", precision, threads=2, cache_dir=cache_dir)
        found.append(encode_all(engine, SMALL))
    assert len(list(tmp_path.iterdir())) == (precision != "f32")
    for vectors in found[1:]:
        assert_same(vectors, found[0])


@pytest.mark.parametrize("precision", PRECISIONS)
def test_openvino_leaves_the_mapped_weights_as_they_are(folder, precision):
    """It is given them to read; and whatever it wrote would be gone when the pages are released."""
    architecture = read_architecture(folder)
    engine = OpenVinoEngine(folder, architecture, "mean", precision, threads=2)
    expected = encode_all(engine, SMALL)
    unused = convert(open_weights(folder, architecture), precision, None)
    for name in unused.tensors:
        np.testing.assert_array_equal(engine._weights.stored(name), unused.stored(name))
    engine.settle()
    np.testing.assert_array_equal(encode_all(engine, SMALL), expected)


@pytest.mark.parametrize("precision", PRECISIONS[1:])
def test_streams_give_the_same_vectors_in_other_precisions(folder, precision):
    architecture = read_architecture(folder)
    one, two = (
        OpenVinoEngine(folder, architecture, "mean", precision, threads=2, streams=streams) for streams in (1, 2)
    )
    assert_same(encode_all(two, LARGE), encode_all(one, LARGE))
