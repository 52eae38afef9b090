"""Vectors of every encoding compared, against plain arithmetic."""

from __future__ import annotations

from typing import Any

import numpy as np
import polarvec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from polarvec import Int8Embeddings, cosine_similarity, hamming_similarity
from unit.scripted_server import RunningServer

LEFT = np.random.default_rng(1).standard_normal((3, 16)).astype(np.float32)
RIGHT = np.random.default_rng(2).standard_normal((4, 16)).astype(np.float32)


def plain_cosine(a: np.ndarray, b: np.ndarray) -> float:
    """In float64, one pair at a time."""
    a, b = a.astype(np.float64), b.astype(np.float64)
    return float(sum(a * b) / (sum(a * a) ** 0.5 * sum(b * b) ** 0.5))


def int8(rows: np.ndarray) -> Int8Embeddings:
    scales = np.abs(rows).max(axis=-1, keepdims=True) / 127
    return Int8Embeddings(values=np.rint(rows / scales).astype(np.int8), scales=scales[..., 0])


@pytest.mark.parametrize(
    ("a", "b", "shape"),
    [(LEFT, RIGHT, (3, 4)), (LEFT, RIGHT[0], (3,)), (LEFT[0], RIGHT, (4,)), (LEFT[0], RIGHT[0], ())],
    ids=["matrices", "matrix and vector", "vector and matrix", "vectors"],
)
def test_shapes_and_values(a: np.ndarray, b: np.ndarray, shape: tuple[int, ...]) -> None:
    result = cosine_similarity(a, b)
    expected = [[plain_cosine(left, right) for right in np.atleast_2d(b)] for left in np.atleast_2d(a)]
    assert result.shape == shape
    assert result.dtype == np.float32
    np.testing.assert_allclose(result, np.reshape(expected, shape), atol=1e-6)


@pytest.mark.parametrize(
    ("encode", "tolerance"),
    [(lambda rows: rows.astype(np.float16), 2e-3), (int8, 2e-2), (lambda rows: rows * 1000, 1e-6)],
    ids=["float16", "int8", "not unit length"],
)
def test_encodings_go_together(encode: Any, tolerance: float) -> None:
    exact = cosine_similarity(LEFT, RIGHT)
    np.testing.assert_allclose(cosine_similarity(encode(LEFT), RIGHT), exact, atol=tolerance)
    np.testing.assert_allclose(cosine_similarity(LEFT[0], encode(RIGHT)), exact[0], atol=tolerance)
    np.testing.assert_allclose(cosine_similarity(encode(LEFT), encode(RIGHT)), exact, atol=2 * tolerance)


def test_zero_vector_is_like_nothing() -> None:
    assert cosine_similarity(np.zeros(16, np.float32), RIGHT).tolist() == [0, 0, 0, 0]


def test_vector_that_is_not_finite_is_not_like_nothing() -> None:
    broken = np.full(16, np.nan, np.float32)
    assert np.isnan(cosine_similarity(broken, RIGHT)).all()


def test_scores_stay_within_one() -> None:
    assert np.abs(cosine_similarity(LEFT, np.concatenate([LEFT, -LEFT]))).max() == pytest.approx(1, abs=1e-6)
    assert np.abs(cosine_similarity(LEFT, np.concatenate([LEFT, -LEFT]))).max() <= 1


@given(st.lists(st.binary(min_size=6, max_size=6), min_size=1, max_size=5), st.binary(min_size=6, max_size=6))
def test_hamming_counts_the_bits_that_agree(rows: list[bytes], other: bytes) -> None:
    matrix = np.frombuffer(b"".join(rows), np.uint8).reshape(-1, 6)
    expected = [
        1 - sum((left ^ right).bit_count() for left, right in zip(row, other, strict=True)) / 48 for row in rows
    ]
    result = hamming_similarity(matrix, np.frombuffer(other, np.uint8))
    assert result.dtype == np.float32
    np.testing.assert_allclose(result, expected, atol=1e-7)
    assert hamming_similarity(matrix, matrix).shape == (len(rows), len(rows))
    assert hamming_similarity(matrix[0], matrix[0]) == 1


@pytest.mark.parametrize(
    ("compare", "a", "b", "error", "complaint"),
    [
        (cosine_similarity, np.zeros(2, np.uint8), LEFT[0], TypeError, "hamming_similarity"),
        (cosine_similarity, LEFT, np.zeros(16, np.int64), TypeError, "b is of dtype int64; give floats"),
        (cosine_similarity, LEFT, RIGHT[:, :8], ValueError, "a has 16 dimensions and b 8"),
        (cosine_similarity, LEFT[None], RIGHT, ValueError, r"shape \(1, 3, 16\); give \(D,\) or \(N, D\)"),
        (cosine_similarity, np.float32(1), RIGHT, ValueError, "give"),
        (hamming_similarity, LEFT, LEFT, TypeError, "a is of dtype float32; give uint8"),
        (hamming_similarity, np.zeros(2, np.uint8), np.zeros(3, np.uint8), ValueError, "a has 16 bits and b 24"),
    ],
)
def test_what_cannot_be_compared_is_refused(
    compare: Any, a: Any, b: Any, error: type[Exception], complaint: str
) -> None:
    with pytest.raises(error, match=complaint):
        compare(a, b)


def test_answers_of_the_server_can_be_compared_in_every_encoding(client: Any, scripted: RunningServer) -> None:
    texts = ["서울", "부산", "Seoul"]
    exact = cosine_similarity(client.embed_documents(texts), client.embed_queries("서울"))
    assert exact.argmax() == 0
    for encoding in ("float16", "int8"):
        close = cosine_similarity(
            client.embed_documents(texts, encoding=encoding), client.embed_queries("서울", encoding=encoding)
        )
        np.testing.assert_allclose(close, exact, atol=1e-2)
    bits = hamming_similarity(
        client.embed_documents(texts, encoding="binary"), client.embed_queries("서울", encoding="binary")
    )
    assert bits[0] == 1
    assert polarvec.hamming_similarity is hamming_similarity
