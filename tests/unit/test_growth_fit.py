"""The arithmetic of the growth benchmark: exponents and knees of known curves, texts of a wanted length."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer

sys.path.append(str(Path(__file__).parents[2] / "load_tests" / "growth"))

from fit import exponent, growth, line, square
from word_texts import WordTexts

DOUBLED = [float(2**power) for power in range(4, 14)]


@pytest.mark.parametrize("power", [0.0, 0.5, 1.0, 2.0])
def test_a_power_law_gives_its_exponent_and_no_knee(power):
    ys = [3 * x**power for x in DOUBLED]
    assert exponent(DOUBLED, ys) == pytest.approx(power, abs=1e-9)
    found = growth(DOUBLED, ys)
    assert found.knee is None
    assert found.before == found.after == pytest.approx(power, abs=1e-9)


def test_a_bend_is_found_where_it_is():
    ys = [min(x, 256.0) ** 0.1 * max(x / 256, 1.0) ** 1.1 for x in DOUBLED]
    found = growth(DOUBLED, ys)
    assert found.knee == 256
    assert (found.before, found.after) == pytest.approx((0.1, 1.1))


def test_noise_of_a_twentieth_is_no_knee():
    noise = np.random.Generator(np.random.PCG64(1)).uniform(0.95, 1.05, len(DOUBLED))
    assert growth(DOUBLED, [x * factor for x, factor in zip(DOUBLED, noise, strict=True)]).knee is None


def test_three_points_have_no_knee():
    assert growth([1, 2, 3], [1, 10, 11]).knee is None


def test_a_line_gives_its_fixed_part_and_the_point_where_both_parts_are_alike():
    found = line(DOUBLED, [5 + 0.02 * x for x in DOUBLED])
    assert (found.fixed, found.slope, found.knee) == pytest.approx((5, 0.02, 250))


def test_a_square_gives_both_parts():
    assert square(DOUBLED, [2 * x + 0.001 * x * x for x in DOUBLED]) == pytest.approx((2, 0.001))


@pytest.mark.parametrize("prompt", ["", "query: "])
@pytest.mark.parametrize("tokens", [16, 20, 512, 8192])
def test_texts_have_the_tokens_that_were_asked_for_and_differ(e5_small, tokens, prompt):
    file = e5_small / "tokenizer.json"
    texts = WordTexts(file, prompt).make(40, tokens, 3)
    encoded = Tokenizer.from_file(str(file)).encode_batch_fast([prompt + text for text in texts])
    assert Counter(len(text.ids) for text in encoded) == {tokens: 40}
    assert len(set(texts)) == 40
    assert texts == WordTexts(file, prompt).make(40, tokens, 3)
