import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from polarvec_server.errors import NonFinite, UnsupportedDimensions
from polarvec_server.pipeline.postprocess import check_dimensions, encode_vectors, shape_vectors
from polarvec_server.pipeline.values import Encoding, VectorOptions

POOLED = np.random.default_rng(7).normal(size=(5, 64)).astype(np.float32)
floats = hnp.arrays(
    np.float32, st.tuples(st.integers(1, 6), st.sampled_from([8, 24, 64])), elements=st.floats(-3, 3, width=32)
).filter(lambda array: bool((np.abs(array).max(axis=1) > 1e-3).all()))


@pytest.mark.parametrize(("asked", "kept"), [(0, 64), (64, 64), (8, 8), (40, 40)])
def test_dimensions_that_are_allowed(asked, kept):
    assert check_dimensions(asked, 64) == kept


@pytest.mark.parametrize("asked", [-1, 1, 7, 12, 65, 72, 10**9, -(2**31)])
def test_dimensions_that_are_refused(asked):
    with pytest.raises(UnsupportedDimensions) as caught:
        check_dimensions(asked, 64)
    assert caught.value.metadata == {"dimensions": str(asked), "max_dimensions": "64"}


@pytest.mark.parametrize("asked", [1, 7, 63, 64])
def test_a_step_of_one_allows_every_dimension(asked):
    assert check_dimensions(asked, 64, step=1) == asked


@pytest.mark.parametrize("asked", [-1, 65])
def test_a_step_of_one_refuses_what_there_is_not(asked):
    with pytest.raises(UnsupportedDimensions, match="from 1 to 64"):
        check_dimensions(asked, 64, step=1)


def test_cutting_comes_before_unit_length():
    shaped = shape_vectors(POOLED, VectorOptions(dimensions=16))
    assert shaped.shape == (5, 16)
    np.testing.assert_allclose(np.linalg.norm(shaped, axis=1), 1, rtol=1e-6)
    np.testing.assert_allclose(
        shaped, POOLED[:, :16] / np.linalg.norm(POOLED[:, :16], axis=1, keepdims=True), rtol=1e-5
    )


def test_unnormalized_vectors_are_the_pooled_ones():
    np.testing.assert_array_equal(shape_vectors(POOLED, VectorOptions(unnormalized=True)), POOLED)


def test_large_numbers_keep_their_direction():
    shaped = shape_vectors(POOLED * np.float32(1e30), VectorOptions())
    np.testing.assert_allclose(shaped, shape_vectors(POOLED, VectorOptions()), rtol=1e-5)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_numbers_that_are_not_finite_never_leave(bad):
    broken = POOLED.copy()
    broken[3, 5] = bad
    with pytest.raises(NonFinite):
        shape_vectors(broken, VectorOptions())


def test_a_vector_without_length_never_leaves():
    broken = POOLED.copy()
    broken[2] = 0
    with pytest.raises(NonFinite):
        shape_vectors(broken, VectorOptions())


@given(floats)
def test_float_encodings_are_little_endian_rows(vectors):
    for encoding, dtype in ((Encoding.FLOAT32, "<f4"), (Encoding.FLOAT16, "<f2")):
        encoded = encode_vectors(vectors, encoding)
        back = np.frombuffer(encoded.data, dtype).reshape(-1, encoded.dimensions)
        np.testing.assert_array_equal(back, vectors.astype(dtype))


@given(floats)
def test_int8_is_within_half_a_step(vectors):
    encoded = encode_vectors(vectors, Encoding.INT8)
    assert encoded.scales is not None
    back = np.frombuffer(encoded.data, np.int8).reshape(vectors.shape) * encoded.scales[:, None]
    assert (np.abs(back - vectors) <= encoded.scales[:, None] * 0.5001).all()


@given(floats)
def test_binary_packs_signs_most_significant_first(vectors):
    encoded = encode_vectors(vectors, Encoding.BINARY)
    first = encoded.data[0]
    assert [bool(first & (0x80 >> bit)) for bit in range(8)] == [bool(number > 0) for number in vectors[0, :8]]
    assert len(encoded.data) == vectors.shape[0] * vectors.shape[1] // 8


def test_numbers_beyond_float16_are_refused():
    with pytest.raises(NonFinite):
        encode_vectors(np.full((1, 8), 1e6, np.float32), Encoding.FLOAT16)
