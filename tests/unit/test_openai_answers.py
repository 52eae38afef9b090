"""What the OpenAI door writes: JSON that gives back every bit of a float32."""

import base64
import json

import numpy as np
import pytest
from polarvec_server.edge.openai_answers import embeddings_body
from polarvec_server.pipeline.postprocess import encode_vectors
from polarvec_server.pipeline.values import Encoding


class Model:
    id, fingerprint = 'a"b', "0123"


@pytest.fixture
def vectors():
    drawn = np.random.default_rng(1).standard_normal((50, 1024)).astype(np.float32)
    drawn[0, :6] = [0.0, 1e-38, 1e-45, -1e30, np.float32(1) / 3, 16777217]
    return drawn


@pytest.mark.parametrize("as_numbers", [True, False], ids=["numbers", "base64"])
async def test_every_bit_of_a_float32_comes_back(vectors, as_numbers):
    encoded = encode_vectors(vectors, Encoding.FLOAT32)
    answer = json.loads(await embeddings_body(Model, encoded, as_numbers, 7))
    rows = [item["embedding"] for item in answer["data"]]
    read = np.array(rows if as_numbers else [np.frombuffer(base64.b64decode(row), "<f4") for row in rows], np.float32)
    np.testing.assert_array_equal(read, vectors)
    assert [item["index"] for item in answer["data"]] == list(range(50))
    assert answer["usage"] == {"prompt_tokens": 7, "total_tokens": 7}
    assert (answer["model"], answer["fingerprint"]) == ('a"b', "0123")


@pytest.mark.parametrize(("encoding", "row_bytes"), [(Encoding.INT8, 1024), (Encoding.BINARY, 128)])
async def test_rows_are_cut_where_they_end(vectors, encoding, row_bytes):
    encoded = encode_vectors(vectors, encoding)
    answer = json.loads(await embeddings_body(Model, encoded, False, 7))
    rows = [base64.b64decode(item["embedding"]) for item in answer["data"]]
    assert {len(row) for row in rows} == {row_bytes} and b"".join(rows) == encoded.data
    scales = [item.get("scale") for item in answer["data"]]
    assert scales == ([None] * 50 if encoded.scales is None else encoded.scales.tolist())
