"""The engine that computes nothing: its vectors belong to their texts, and nobody gets it unasked."""

import sys

import numpy as np
import pytest
from encoder_folders import VOCABULARY, write_model
from polarvec_encoder.architecture import read_architecture
from polarvec_encoder.batch import PackedBatch
from polarvec_encoder.choice import PRECISIONS, choose
from polarvec_encoder.engine import encode_all
from polarvec_encoder.engine_null import NullEngine
from polarvec_encoder.errors import EncoderError
from polarvec_encoder.gpu import Gpu, GpuFinding
from polarvec_encoder.hardware import Hardware
from polarvec_encoder.loading import EncoderSettings, load

MACHINES = [Hardware(2, frozenset(flags)) for flags in ((), ("avx2", "avx_vnni"), ("amx_bf16", "amx_int8"))]
GPUS = [GpuFinding((), "there is none"), GpuFinding((Gpu("NVIDIA H100", (9, 0)),), "")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    write_model(folder)
    return folder


@pytest.fixture(scope="module")
def engine(folder):
    return NullEngine(read_architecture(folder))


def unit(vectors):
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def test_a_text_has_one_vector_alone_and_in_company(engine):
    texts = [[0, 5, 2], [0, 6, 7, 2], [0, 5, 2], list(range(VOCABULARY))]
    together = encode_all(engine, PackedBatch.of_texts(texts))
    assert together.shape == (4, engine.dimensions)
    assert together.dtype == np.float32
    for text, vector in zip(texts, together, strict=True):
        np.testing.assert_array_equal(encode_all(engine, PackedBatch.of_texts([text]))[0], vector)


def test_other_texts_get_unrelated_vectors(engine):
    """Also where only the order, the length or one token differs."""
    random = np.random.default_rng(1)
    texts = [[0, 5, 6, 2], [0, 6, 5, 2], [0, 5, 6], [0, 5, 6, 2, 0], [0], [1], [0, 0]]
    texts += [[0, *random.integers(3, VOCABULARY, 4), 2] for _ in range(500)]
    vectors = unit(encode_all(engine, PackedBatch.of_texts(texts)))
    cosines = vectors @ vectors.T - np.eye(len(texts))
    # Standard deviation 1/8 in 64 dimensions; equal ones would have 1.
    assert np.abs(cosines).max() < 0.75
    assert abs(cosines.mean()) < 0.02
    assert np.abs(vectors.mean(axis=0)).max() < 0.05


def test_its_golden_vectors_hold_and_are_no_other_engines(folder, tmp_path):
    from polarvec_encoder.__main__ import main

    values = {"model_path": str(folder), "engine": "null", "precision": "f32", "pooling": "cls", "gelu": "auto"}
    values |= {"threads": "1", "streams": "0", "dimensions": "64", "max_tokens": "512"}
    golden = tmp_path / "golden.json"
    command = ["inspect", "--model", str(folder), "--pooling", "cls", "--golden", str(golden), "--golden-ids", "0,5,2"]
    assert main([*command, "--engine", "null"]) == 0
    settings = EncoderSettings.from_parameters(values | {"golden_path": str(golden)})
    assert "golden cosine 1.0000" in load(settings).report
    golden.unlink()
    assert main([*command, "--engine", "openvino"]) == 0
    with pytest.raises(EncoderError, match="differ from the stored"):
        load(settings)


@pytest.mark.parametrize("precision", ["auto", *PRECISIONS])
@pytest.mark.parametrize("hardware", MACHINES, ids=lambda hardware: f"{len(hardware.flags)} flags")
@pytest.mark.parametrize("gpus", GPUS, ids=["no gpu", "gpu"])
def test_auto_never_chooses_it(precision, hardware, gpus):
    try:
        engine = choose("auto", precision, hardware, look_for_gpus=lambda: gpus).engine
    except EncoderError as refusal:
        assert "null" not in str(refusal)
    else:
        assert engine in ("openvino", "cuda")


def test_it_says_what_it_is():
    choice = choose("null", "auto", MACHINES[0], look_for_gpus=lambda: GPUS[1])
    assert (choice.engine, choice.precision, choice.gpu_count) == ("null", "f32", 0)
    assert "without meaning" in choice.why


def test_it_needs_no_library(folder, monkeypatch):
    for name in ("openvino", "torch", "transformers"):
        monkeypatch.setitem(sys.modules, name, None)
    engine = NullEngine(read_architecture(folder))
    assert np.isfinite(encode_all(engine, PackedBatch.of_texts([[0, 1, 2]]))).all()
