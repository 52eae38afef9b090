"""Requests become batches only when they are whole, and positions are counted as transformers counts them."""

import dataclasses

import numpy as np
import pytest
import torch
from encoder_folders import write_model
from hypothesis import given
from hypothesis import strategies as st
from polarvec_encoder.architecture import read_architecture
from polarvec_encoder.batch import PackedBatch, positions, read_pack
from polarvec_encoder.errors import RequestRefused


def read(token_ids, lengths, vocabulary=100, max_tokens=8):
    return read_pack(np.array(token_ids, np.int32), np.array(lengths, np.int32), vocabulary, max_tokens)


def test_a_whole_pack_is_copied():
    token_ids, lengths = np.array([[5, 6, 7, 99]], np.int32), np.array([[1, 3]], np.int32)
    pack = read_pack(token_ids, lengths, 100, 8)
    token_ids[:], lengths[:] = 0, 0
    assert pack.token_ids.tolist() == [5, 6, 7, 99]
    assert pack.lengths.tolist() == [1, 3]
    assert pack.starts.tolist() == [0, 1]


@pytest.mark.parametrize(
    ("token_ids", "lengths", "message"),
    [
        ([[5, 6, 7]], [[2]], "do not sum"),
        ([[5, 6, 7]], [[2, 2]], "do not sum"),
        ([[5, 6, 7]], [[3, 0]], "empty or longer"),
        ([[5, 6, 7]], [[4, -1]], "empty or longer"),
        ([[5] * 9], [[9]], "empty or longer"),
        ([[5, 100]], [[2]], "outside the vocabulary"),
        ([[5, -1]], [[2]], "outside the vocabulary"),
        ([[]], [[]], "at least one text"),
        ([[5], [6]], [[1], [1]], "shapes"),
        ([5, 6], [2], "shapes"),
    ],
)
def test_a_broken_pack_is_refused(token_ids, lengths, message):
    with pytest.raises(RequestRefused, match=message):
        read(token_ids, lengths)


def test_lengths_that_overflow_32_bits_are_refused():
    lengths = [[2**31 - 1, 2**31 - 1, 4]]
    with pytest.raises(RequestRefused, match="do not sum"):
        read([[5, 6]], lengths, max_tokens=2**31 - 1)


def test_joining_keeps_the_order():
    joined = PackedBatch.join([PackedBatch.of_texts([[1, 2], [3]]), PackedBatch.of_texts([[4]])])
    assert joined.token_ids.tolist() == [1, 2, 3, 4]
    assert joined.lengths.tolist() == [2, 1, 1]


@pytest.fixture(scope="module")
def roberta(tmp_path_factory):
    folder = tmp_path_factory.mktemp("roberta")
    return write_model(folder), read_architecture(folder)


@given(texts=st.lists(st.lists(st.integers(0, 5), min_size=1, max_size=9), min_size=1, max_size=6))
def test_roberta_positions_are_those_of_transformers(roberta, texts):
    model, architecture = roberta
    found = positions(PackedBatch.of_texts(texts), architecture)
    create = type(model.embeddings).create_position_ids_from_input_ids
    expected = [create(torch.tensor([text]), architecture.pad_id)[0].numpy() for text in texts]
    np.testing.assert_array_equal(found, np.concatenate(expected))


def test_bert_positions_start_at_zero_in_every_text(roberta):
    bert = dataclasses.replace(roberta[1], skips_padding=False, first_position=0)
    assert positions(PackedBatch.of_texts([[7, 1, 1], [9], [1, 2]]), bert).tolist() == [0, 1, 2, 0, 0, 1]
