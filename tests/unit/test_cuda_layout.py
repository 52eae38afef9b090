"""Batches are cut into passes of few sizes, and every row of a pass belongs to a whole sequence."""

import itertools

import numpy as np
import pytest
from polarvec_encoder.batch import PackedBatch
from polarvec_encoder.cuda.layout import input_count, lay_out, views
from polarvec_encoder.cuda.passes import TILE, TOKENS_PER_TEXT, Span, pass_sizes, plan_passes

SIZES = pass_sizes(8448)


def spans_of(lengths, sizes=SIZES):
    return list(plan_passes(np.array(lengths, np.int32), sizes))


@pytest.mark.parametrize("largest", [128, 1024, 4224, 8448, 16896])
def test_sizes_are_tiles_up_to_the_largest(largest):
    sizes = pass_sizes(largest)
    assert sizes[0] == TILE and sizes[-1] == largest
    assert sorted(set(sizes)) == list(sizes)
    assert all(size % TILE == 0 for size in sizes)


def test_sizes_waste_little_on_padding():
    assert len(SIZES) == 22
    steps = [(low, high) for low, high in itertools.pairwise(SIZES) if low >= 1024]
    assert all((high - low) / high <= 0.2 for low, high in steps)


@pytest.mark.parametrize(
    "lengths",
    [[1], [128], [129], [8192], [8192, 8192], [8448], [8449], [20000, 3], [1] * 5000, [3, 8000, 500, 2, 8192, 1]],
    ids=str,
)
def test_every_text_is_in_one_pass_that_holds_it(lengths):
    spans = spans_of(lengths[:10] if len(lengths) > 5000 else lengths)
    assert [text for span in spans for text in range(span.first, span.last)] == list(range(len(lengths)))
    for span in spans:
        tokens = sum(lengths[span.first : span.last])
        assert tokens <= span.tokens and span.tokens % TILE == 0
        assert (span.last - span.first) * TOKENS_PER_TEXT <= span.tokens
        # A size of the table, but for a text longer than all of them.
        assert span.tokens in SIZES or span.last - span.first == 1


@pytest.mark.parametrize("size", SIZES)
def test_a_pass_is_as_small_as_its_tokens_allow(size):
    smaller = max((other for other in SIZES if other < size), default=0)
    for tokens in (smaller + 1, size):
        assert [span.tokens for span in spans_of([tokens])] == [size]


def test_many_short_texts_take_a_size_with_room_for_their_vectors():
    assert [span.tokens for span in spans_of([2] * 100)] == [896]


@pytest.mark.parametrize("last", [False, True], ids=["first", "last"])
@pytest.mark.parametrize("lengths", [[5], [128], [1, 2, 3], [100, 50, 300], [127, 1], [512]], ids=str)
def test_rows_know_their_sequence(lengths, last):
    ids = np.arange(10, 10 + sum(lengths), dtype=np.int32)
    batch = PackedBatch(ids, np.array(lengths, np.int32))
    (span,) = spans_of(lengths)
    flat = lay_out(batch, ids + 1000, span, pad_id=1, pad_position=2, last=last)
    assert flat.size == input_count(span.tokens)
    inputs = views(flat, span.tokens)
    filled, ends = sum(lengths), np.cumsum(lengths)
    np.testing.assert_array_equal(inputs.token_ids, [*ids, *[1] * (span.tokens - filled)])
    np.testing.assert_array_equal(inputs.positions, [*(ids + 1000), *[2] * (span.tokens - filled)])
    np.testing.assert_array_equal(inputs.starts[:filled], np.repeat(ends - lengths, lengths))
    np.testing.assert_array_equal(inputs.ends[:filled], np.repeat(ends, lengths))
    texts = len(lengths)
    np.testing.assert_array_equal(inputs.picks[:texts], ends - 1 if last else ends - lengths)
    assert (inputs.picks[texts:] == -1).all() and inputs.picks.size == span.tokens // TOKENS_PER_TEXT
    # A row lies in its own sequence, also in the padding, whose sequences stay short and inside one tile.
    rows = np.arange(span.tokens)
    assert (inputs.starts <= rows).all() and (rows < inputs.ends).all() and (inputs.ends <= span.tokens).all()
    padding = rows[filled:]
    assert (inputs.starts[filled:] // TILE == padding // TILE).all()
    assert (inputs.ends[filled:] - inputs.starts[filled:] <= TILE).all()
    assert (inputs.starts[filled:] >= filled).all()
    # Sequences follow one another, so a tile's keys lie between its first row's start and its last row's end.
    assert (np.diff(inputs.starts) >= 0).all() and (np.diff(inputs.ends) >= 0).all()


def test_a_later_pass_takes_its_own_tokens():
    batch = PackedBatch(np.arange(300, dtype=np.int32), np.array([100, 150, 50], np.int32))
    inputs = views(lay_out(batch, np.arange(300, dtype=np.int32), Span(1, 3, 256), 1, 2, last=False), 256)
    np.testing.assert_array_equal(inputs.token_ids[:200], np.arange(100, 300))
    np.testing.assert_array_equal(inputs.picks[:3], [0, 150, -1])
