"""Weights are rounded to the nearest number that their format holds."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from polarvec_encoder.quantisation import to_bfloat16, to_int8

WEIGHTS = arrays.arrays(
    np.float32,
    st.tuples(st.integers(1, 6), st.integers(1, 40)),
    elements=st.floats(width=32, allow_nan=False, allow_infinity=False),
)


def patterns(values):
    return torch.from_numpy(values).to(torch.bfloat16).view(torch.int16).numpy().view(np.uint16)


def test_all_kinds_of_numbers_become_the_bfloat16_that_torch_makes():
    """Every pattern of the upper half, with the lower halves around a tie: 65,536 x 6 numbers."""
    lower = np.array([0, 1, 0x7FFF, 0x8000, 0x8001, 0xFFFF], np.uint32)
    values = ((np.arange(1 << 16, dtype=np.uint32)[:, None] << 16) | lower).view(np.float32)
    found, expected = to_bfloat16(values), patterns(values)
    numbers = ~np.isnan(values)
    np.testing.assert_array_equal(found[numbers], expected[numbers])
    assert np.isnan((found[~numbers].astype(np.uint32) << 16).view(np.float32)).all()


@pytest.mark.parametrize(
    ("value", "pattern"),
    [
        (-0.0, 0x8000),
        (np.inf, 0x7F80),
        (-np.inf, 0xFF80),
        (3.4e38, 0x7F80),
        (1 + 2**-8, 0x3F80),
        (1 + 3 * 2**-8, 0x3F82),
    ],
)
def test_zeros_infinities_and_ties(value, pattern):
    assert to_bfloat16(np.array([[value]], np.float32)).item() == pattern


def test_a_transposed_weight_is_converted_in_its_own_order():
    weight = np.random.default_rng(0).standard_normal((3, 5)).astype(np.float32)
    np.testing.assert_array_equal(to_bfloat16(weight.T), to_bfloat16(weight).T)


@given(WEIGHTS)
def test_int8_is_at_most_half_a_scale_off(weight):
    integers, scales = to_int8(weight)
    assert (integers.dtype, scales.dtype, scales.shape) == (np.int8, np.float32, (len(weight), 1))
    assert integers.min() >= -127
    assert np.isfinite(scales).all() and (scales > 0).all()
    # The quotient is rounded to float32 before it is rounded to a whole number: up to 127 x 2^-24 of a scale.
    error = np.abs(integers * scales.astype(np.float64) - weight)
    assert (error <= scales * (0.5 + 1e-5)).all()


@given(WEIGHTS)
def test_int8_is_symmetric(weight):
    integers, scales = to_int8(weight)
    mirrored, same = to_int8(-weight)
    np.testing.assert_array_equal(mirrored, -integers)
    np.testing.assert_array_equal(same, scales)


def test_each_row_uses_the_whole_range_and_none_the_scale_of_another():
    weight = np.random.default_rng(0).standard_normal((50, 30)).astype(np.float32)
    weight *= 10.0 ** np.arange(-25, 25)[:, None].astype(np.float32)
    integers, scales = to_int8(weight)
    np.testing.assert_array_equal(np.abs(integers).max(axis=1), 127)
    np.testing.assert_allclose(scales[:, 0], np.abs(weight).max(axis=1) / 127, rtol=1e-6)


def test_a_row_of_zeros_stays_one():
    weight = np.zeros((2, 4), np.float32)
    weight[1] = [1, -2, 0, 0.5]
    integers, scales = to_int8(weight)
    np.testing.assert_array_equal(integers, [[0, 0, 0, 0], [64, -127, 0, 32]])
    assert np.isfinite(scales).all()
