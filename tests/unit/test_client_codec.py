"""Bytes of a response to arrays: byte order, bit order, lengths, round trips."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from polarvec import CallTimings, Int8Embeddings, ServerError
from polarvec._batching import Batch
from polarvec._codec import Joined, decode, row
from polarvec._results import EmbedPart, EmbedParts
from polarvec_proto.v1 import embedding_pb2 as pb
from unit.scripted_server import encode

ENCODINGS = {
    "float32": pb.ENCODING_FLOAT32,
    "float16": pb.ENCODING_FLOAT16,
    "int8": pb.ENCODING_INT8,
    "binary": pb.ENCODING_BINARY,
}
ROWS = arrays.arrays(
    np.float32,
    st.tuples(st.integers(1, 5), st.sampled_from([8, 16, 24])),
    elements=st.floats(-1, 1, width=16, allow_subnormal=False),
)


def response(encoding: int, dimensions: int, data: bytes, scales: list[float] | None = None) -> pb.EmbedResponse:
    return pb.EmbedResponse(encoding=encoding, dimensions=dimensions, embeddings=data, scales=scales or [])


@pytest.mark.parametrize("name", ENCODINGS)
@given(rows=ROWS)
def test_round_trip(name: str, rows: np.ndarray) -> None:
    data, scales = encode(rows, ENCODINGS[name])
    decoded = decode(response(ENCODINGS[name], rows.shape[1], data, scales), len(rows))
    if name == "binary":
        np.testing.assert_array_equal(np.unpackbits(decoded, axis=1), rows > 0)
    elif name == "int8":
        assert isinstance(decoded, Int8Embeddings)
        step = np.abs(rows).max(axis=1, keepdims=True) / 127
        assert np.all(np.abs(decoded.to_float32() - rows) <= step / 2 + 1e-6)
    else:
        assert decoded.dtype == np.dtype(name)
        np.testing.assert_array_equal(decoded.astype(np.float32), rows)


@pytest.mark.parametrize(
    ("encoding", "data", "expected"),
    [
        (pb.ENCODING_FLOAT32, bytes.fromhex("0000803f000000c0") * 4, [1.0, -2.0] * 4),
        (pb.ENCODING_FLOAT16, bytes.fromhex("003c00c0") * 4, [1.0, -2.0] * 4),
        (pb.ENCODING_BINARY, bytes([0b10000001]), [0b10000001]),
    ],
    ids=["float32", "float16", "binary"],
)
def test_bytes_are_little_endian_whatever_the_machine(encoding: int, data: bytes, expected: list[float]) -> None:
    decoded = decode(response(encoding, 8, data), 1)
    assert decoded.tolist() == [expected]
    assert decoded.dtype.isnative


def test_int8_is_byte_times_scale() -> None:
    decoded = decode(response(pb.ENCODING_INT8, 2, bytes([127, 0x81]), [0.5]), 1)
    assert decoded.to_float32().tolist() == [[63.5, -63.5]]


@pytest.mark.parametrize("name", ENCODINGS)
@given(rows=ROWS, extra=st.sampled_from([-3, -1, 1, 3]))
def test_wrong_length_is_a_server_error(name: str, rows: np.ndarray, extra: int) -> None:
    data, scales = encode(rows, ENCODINGS[name])
    cut = data[:extra] if extra < 0 else data + bytes(extra)
    with pytest.raises(ServerError, match="bytes where"):
        decode(response(ENCODINGS[name], rows.shape[1], cut, scales), len(rows))
    with pytest.raises(ServerError, match="bytes where"):
        decode(response(ENCODINGS[name], rows.shape[1], data, scales), len(rows) + extra)


def test_missing_scale_is_a_server_error() -> None:
    with pytest.raises(ServerError, match="1 scales for 2"):
        decode(response(pb.ENCODING_INT8, 1, b"ab", [1.0]), 2)


@pytest.mark.parametrize("encoding", [pb.ENCODING_UNSPECIFIED, 5, -1])
def test_unknown_encoding_is_a_server_error(encoding: int) -> None:
    with pytest.raises(ServerError, match="upgrade polarvec"):
        decode(response(encoding, 8, bytes(32)), 1)


@pytest.mark.parametrize("name", ENCODINGS)
@given(parts=st.lists(ROWS, min_size=1, max_size=4))
def test_joined_parts_and_rows_keep_order_and_are_copies(name: str, parts: list[np.ndarray]) -> None:
    parts = [part[:, :8] for part in parts]
    decoded = [decode(response(ENCODINGS[name], 8, *encode(part, ENCODINGS[name])), len(part)) for part in parts]
    whole = decode(response(ENCODINGS[name], 8, *encode(np.concatenate(parts), ENCODINGS[name])), sum(map(len, parts)))
    building = Joined(sum(map(len, parts)))
    for part in decoded:
        building.add(part)
    joined = building.embeddings
    for index in range(len(joined)):
        one, expected = row(joined, index), row(whole, index)
        if isinstance(one, Int8Embeddings) and isinstance(expected, Int8Embeddings):
            np.testing.assert_array_equal(one.to_float32(), expected.to_float32())
            one = one.values
            assert not np.shares_memory(one, joined.values)
        else:
            np.testing.assert_array_equal(one, expected)
            assert not np.shares_memory(one, joined)
            assert joined.flags.writeable


def test_joined_parts_are_not_handed_out_before_the_last_is_there() -> None:
    building = Joined(3)
    for count in (1, 1):
        with pytest.raises(AssertionError, match="of 3 vectors"):
            _ = building.embeddings
        building.add(np.ones((count, 8), np.float32))
    building.add(np.ones((1, 8), np.float32))
    assert isinstance(building.embeddings, np.ndarray)


def test_an_answer_is_let_go_once_it_is_read() -> None:
    """Or a long list would need its vectors' memory twice."""
    parts = EmbedParts(2)
    for index in range(2):
        message = response(pb.ENCODING_FLOAT32, 8, bytes(32))
        message.token_counts.append(3)
        held = sys.getrefcount(message)
        parts.append(EmbedPart(Batch([index], ["text"]), message, CallTimings("", None, None, None)))
        assert sys.getrefcount(message) == held
    result = parts.result(single=False)
    assert isinstance(result.embeddings, np.ndarray)
    assert result.embeddings.shape == (2, 8)
    assert result.embeddings.flags.owndata
    assert result.token_counts == (3, 3)
