import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from polarvec_server.pipeline.packing import make_packs
from polarvec_server.pipeline.values import Tokenized


def tokenized(lengths):
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    # The id tells text and place, so that a token in the wrong text shows.
    ids = np.concatenate([np.arange(n) + 1000 * i for i, n in enumerate(lengths)]).astype(np.int32)
    return Tokenized(ids, offsets, np.array(lengths, np.int64))


@given(st.lists(st.integers(1, 90), min_size=1, max_size=60), st.integers(1, 200))
def test_packs_hold_every_text_once_and_keep_the_budget(lengths, pack_tokens):
    source = tokenized(lengths)
    packs = make_packs(source, pack_tokens)
    assert sorted(row for pack in packs for row in pack.rows.tolist()) == list(range(len(lengths)))
    for pack in packs:
        assert pack.token_count <= pack_tokens or len(pack.rows) == 1
        assert int(pack.lengths.sum()) == pack.token_count
        start = 0
        for row, length in zip(pack.rows.tolist(), pack.lengths.tolist(), strict=True):
            expected = source.token_ids[source.offsets[row] : source.offsets[row + 1]]
            np.testing.assert_array_equal(pack.token_ids[start : start + length], expected)
            start += length


def test_texts_of_like_length_travel_together():
    packs = make_packs(tokenized([50, 3, 49, 4, 51, 2]), 100)
    assert [pack.lengths.tolist() for pack in packs] == [[2, 3, 4, 49], [50], [51]]
    assert packs[0].rows.tolist() == [5, 1, 3, 2]
