"""Texts are laid out in rows without loss, overlap or much padding."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from polarvec_encoder.architecture import Architecture
from polarvec_encoder.batch import PackedBatch, positions
from polarvec_encoder.grouping import plan_groups
from polarvec_encoder.rows import fill_rows, pick_tokens

PAD = 1
LENGTHS = st.lists(st.one_of(st.integers(1, 130), st.integers(1, 1100)), min_size=1, max_size=80)


def plan(lengths, group_tokens=1024):
    return list(plan_groups(np.array(lengths, np.int32), group_tokens))


def architecture(skips_padding=True):
    sizes = {"layers": 1, "hidden": 8, "heads": 1, "intermediate": 8, "vocabulary": 10**6, "positions": 10**4}
    return Architecture(
        model_type="bert",
        name="BertModel",
        **sizes,
        token_types=1,
        layer_norm_eps=1e-5,
        pad_id=PAD,
        first_position=2,
        skips_padding=skips_padding,
    )


@given(LENGTHS, st.sampled_from([256, 1024]))
def test_every_text_has_one_place_of_its_own(lengths, group_tokens):
    groups = plan(lengths, group_tokens)
    assert sorted(text for group in groups for text in group.texts.tolist()) == list(range(len(lengths)))
    for group in groups:
        taken = np.zeros((group.row_count, group.row_tokens), int)
        for text, row, column in zip(group.texts, group.rows, group.columns, strict=True):
            assert column + lengths[text] <= group.row_tokens
            taken[row, column : column + lengths[text]] += 1
        assert taken.max() == 1
        assert taken.any(axis=1).all()
        assert group.row_tokens % 16 == 0
        assert group.row_count == 1 or group.row_count * group.row_tokens <= 1.25 * group_tokens + 48
        if not group.shared:
            assert np.unique(group.rows).size == group.texts.size


@given(LENGTHS)
def test_a_token_stands_where_its_text_does_and_sees_its_text_only(lengths):
    token_ids = np.arange(2, 2 + sum(lengths), dtype=np.int32)  # no id twice, none the padding
    batch = PackedBatch(token_ids, np.array(lengths, np.int32))
    spec = architecture()
    places = positions(batch, spec)
    for group in plan(lengths):
        rows = fill_rows(group, batch, places, PAD)
        flat, flat_positions = rows.token_ids.reshape(-1), rows.position_ids.reshape(-1)
        expected = [token_ids[batch.starts[text] : batch.starts[text] + lengths[text]] for text in group.texts]
        np.testing.assert_array_equal(flat[rows.places], np.concatenate(expected))
        np.testing.assert_array_equal(flat_positions[rows.places], places[flat[rows.places] - 2])
        assert (np.delete(flat, rows.places) == PAD).all()
        owners = np.zeros(flat.size, int)
        owners[rows.places] = np.repeat(np.arange(1, group.texts.size + 1), rows.lengths)
        owners = owners.reshape(rows.token_ids.shape)
        visible = np.broadcast_to(rows.mask == 0, (*rows.mask.shape[:2], group.row_tokens, group.row_tokens))[:, 0]
        same = owners[:, :, None] == owners[:, None, :]
        real = owners[:, :, None] > 0
        np.testing.assert_array_equal(visible & real, same & real)
        assert visible.any(axis=2).all()


@given(LENGTHS, st.booleans())
def test_single_row_pooling_picks_the_right_token_with_its_mask(lengths, last):
    token_ids = np.arange(2, 2 + sum(lengths), dtype=np.int32)
    batch = PackedBatch(token_ids, np.array(lengths, np.int32))
    places = positions(batch, architecture())
    for group in plan(lengths):
        rows = fill_rows(group, batch, places, PAD)
        picks = pick_tokens(group, rows, last)
        chosen = picks.places.reshape(-1)[picks.answers]
        ends = batch.starts[group.texts] + batch.lengths[group.texts] - 1
        wanted = token_ids[ends if last else batch.starts[group.texts]]
        np.testing.assert_array_equal(rows.token_ids.reshape(-1)[chosen], wanted)
        row_of = np.repeat(np.arange(group.row_count), picks.places.shape[1])
        np.testing.assert_array_equal(picks.places.reshape(-1) // group.row_tokens, row_of)
        if group.shared:
            full = rows.mask[row_of, 0, picks.places.reshape(-1) % group.row_tokens]
            np.testing.assert_array_equal(picks.mask[:, 0].reshape(full.shape), full)
        assert (picks.mask == 0).any(axis=3).all()


def test_texts_of_mixed_lengths_waste_little():
    lengths = np.clip(np.exp(np.random.default_rng(1).normal(4, 0.75, 256)), 6, 400).astype(int)
    groups = plan(lengths)
    assert sum(group.row_count * group.row_tokens for group in groups) <= 1.06 * lengths.sum()
    assert len({(group.row_count, group.row_tokens) for group in groups}) <= 20


def test_one_query_runs_in_a_short_row():
    (group,) = plan([12])
    assert (group.row_count, group.row_tokens) == (1, 16)


def test_a_long_text_shares_neither_row_nor_mask():
    groups = plan([8192, 5])
    assert [(group.row_count, group.row_tokens, group.shared) for group in groups if 0 in group.texts] == [
        (1, 8192, False)
    ]


@pytest.mark.parametrize("length", [20, 64, 90, 200])
def test_texts_of_one_length_waste_little(length):
    groups = plan([length] * (2000 // length))
    total = sum(group.row_count * group.row_tokens for group in groups)
    assert total <= 1.16 * length * (2000 // length)
