"""Vectors through SDK, gateway and Triton against plain transformers in float32 on the same folder."""

import numpy as np
import pytest
import torch
from polarvec import Client
from polarvec_encoder.hardware import read_hardware
from polarvec_server.models.random_weights import build_random
from server_process import ServerProcess
from texts import ODD, UNITS
from transformers import AutoModel, AutoTokenizer

# Shorter than 3 (one token of content) cannot be sent; the engine's own parity test has lengths 1 and 2.
LENGTHS = (16, 127, 128, 129, 511, 512)


def texts_of_lengths(tokenizer, lengths, units=UNITS):
    """For each unit and length, a text of exactly that many tokens where the unit allows it."""
    texts = {}
    for name, unit in units.items():
        words = (unit * (max(lengths) // 4)).split(" ")
        for length in lengths:
            low, high = 1, len(words)
            while low < high:
                middle = (low + high + 1) // 2
                if len(tokenizer(" ".join(words[:middle]))["input_ids"]) <= length:
                    low = middle
                else:
                    high = middle - 1
            text = " ".join(words[:low])
            # Single letters fill up what whole words leave.
            while len(tokenizer(f"{text} a")["input_ids"]) <= length:
                text += " a"
            texts[f"{name} {len(tokenizer(text)['input_ids'])}"] = text
    return texts


def reference(folder, texts, pooling):
    model = AutoModel.from_pretrained(folder, dtype=torch.float32, attn_implementation="sdpa").eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    rows = []
    with torch.inference_mode():
        for text in texts:
            hidden = model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0]
            rows.append((hidden.mean(0) if pooling == "mean" else hidden[0]).numpy())
    vectors = np.array(rows)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@pytest.fixture(scope="module")
def cases(e5_small):
    texts = texts_of_lengths(AutoTokenizer.from_pretrained(e5_small), LENGTHS) | ODD
    return texts, reference(e5_small, texts.values(), "mean")


@pytest.mark.parametrize(
    ("fixture", "least"),
    [
        pytest.param("server", 0.99999, id="f32"),
        pytest.param("bf16_server", 0.9995, id="bf16"),
        # Least found: 0.9969 (half-width hangul).
        pytest.param("int8_server", 0.995, id="int8"),
    ],
)
def test_vectors_are_those_of_transformers(request, cases, fixture, least):
    texts, expected = cases
    with Client(request.getfixturevalue(fixture).target) as client:
        alone = np.array([client.embed(text, input_type="raw") for text in texts.values()])
        together = client.embed(list(texts.values()), input_type="raw", timeout_s=120)
    for name, mine, packed, theirs in zip(texts, alone, together, expected, strict=True):
        assert mine @ theirs >= least, name
        assert packed @ theirs >= least, name
    counts = [int(name.split()[-1]) for name in texts if name.split()[-1].isdigit()]
    assert set(LENGTHS) <= set(counts)


def test_8192_tokens_on_the_arctic_shape(cache):
    folder = build_random("arctic-l", cache / "models", layers=2)
    texts = list(
        texts_of_lengths(AutoTokenizer.from_pretrained(folder), (512, 8192), {"korean": UNITS["korean"]}).values()
    )
    expected = reference(folder, texts, "cls")
    bars = {"f32": 0.99999} | ({"bf16": 0.9995} if read_hardware().bf16 else {})
    for precision, least in bars.items():
        server = ServerProcess(folder, cache, precision=precision, workers=1).wait_ready()
        try:
            with Client(server.target) as client:
                result = client.embed_detailed(texts, input_type="raw", timeout_s=240)
        finally:
            server.stop()
        assert max(result.token_counts) == 8192
        assert (result.embeddings * expected).sum(axis=1).min() >= least, precision
