"""Every engine gives the vectors of the plain transformers forward pass, whatever company a text is in."""

import gc
import resource
from pathlib import Path

import numpy as np
import pytest
import torch
from polarvec_encoder.architecture import read_architecture
from polarvec_encoder.batch import PackedBatch
from polarvec_encoder.choice import Choice
from polarvec_encoder.engine import encode_all
from polarvec_encoder.hardware import read_hardware
from polarvec_encoder.loading import build_engine
from safetensors.torch import load_file, save_file
from unit.encoder_folders import POSITIONS, VOCABULARY, write_model

LENGTHS = (1, 2, 3, 16, 127, 128, 129, 511, 512)
# Found in bf16: 0.99999, in int8: 0.99980 with AMX and 0.99985 with AVX512_VNNI alone.
MIN_COSINE = {"f32": 0.99999, "bf16": 0.9995, "int8": 0.9995}
# In int8 every token has a scale of its own; were it one for a group, company would cost 0.0001.
MIN_COMPANY_COSINE = {"f32": 0.999999, "bf16": 0.9998, "int8": 0.99999}
POOLINGS = ("cls", "mean", "last_token")
HAS_BF16, HAS_INT8 = bool(read_hardware().bf16), bool(read_hardware().int8)
BF16_PARAM = pytest.param(
    "bf16", id="bf16", marks=pytest.mark.skipif(not HAS_BF16, reason="this CPU has neither AMX nor AVX512_BF16")
)
INT8_PARAM = pytest.param(
    "int8",
    id="int8",
    marks=pytest.mark.skipif(not HAS_INT8, reason="this CPU has neither AVX512_VNNI, AVX_VNNI nor AMX_INT8"),
)
ENGINES = [
    pytest.param("openvino", "f32", id="openvino-f32"),
    pytest.param("openvino", *BF16_PARAM.values, id="openvino-bf16", marks=BF16_PARAM.marks),
    pytest.param("openvino", *INT8_PARAM.values, id="openvino-int8", marks=INT8_PARAM.marks),
    pytest.param("torch", "f32", id="torch-f32"),
]


def random_texts(lengths, seed=0):
    """Each text draws on a few ids of its own, or long ones would all have nearly the same mean."""
    rng = np.random.default_rng(seed)
    return [rng.choice(rng.integers(3, VOCABULARY, 8), length).tolist() for length in lengths]


def pooled_by_transformers(model, texts, pooling):
    """One text at a time, so that no padding and no mask can matter."""
    rows = []
    with torch.no_grad():
        for text in texts:
            hidden = model(torch.tensor([text])).last_hidden_state[0].numpy()
            rows.append({"cls": hidden[0], "mean": hidden.mean(axis=0), "last_token": hidden[-1]}[pooling])
    return np.stack(rows)


def cosines(left, right):
    return (left * right).sum(axis=1) / np.linalg.norm(left, axis=1) / np.linalg.norm(right, axis=1)


def make(folder: Path, engine, precision, pooling):
    return build_engine(folder, read_architecture(folder), pooling, Choice(engine, precision, ""), threads=2)


def encode(engine, texts):
    return encode_all(engine, PackedBatch.of_texts(texts))


@pytest.fixture(scope="module", params=["xlm-roberta", "bert"])
def tiny(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    return folder, write_model(folder, request.param)


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize(("engine", "precision"), ENGINES)
def test_vectors_are_those_of_transformers(tiny, engine, precision, pooling):
    folder, model = tiny
    texts = random_texts(LENGTHS)
    expected = pooled_by_transformers(model, texts, pooling)
    # Texts must differ by far more than the tolerance, or the comparison would show nothing.
    assert (cosines(expected[1:], expected[:-1]) < 0.99).all()
    found = encode(make(folder, engine, precision, pooling), texts)
    assert found.dtype == np.float32
    assert cosines(found, expected).min() >= MIN_COSINE[precision]
    # Numbers of the size of 1, not normalised. So close a look tells exact GELU from tanh and one epsilon from another.
    np.testing.assert_allclose(found, expected, rtol=0, atol={"f32": 2e-5, "bf16": 0.1, "int8": 0.15}[precision])


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize(("engine", "precision"), ENGINES)
def test_a_vector_does_not_depend_on_its_company(tiny, engine, precision, pooling):
    folder, _ = tiny
    engine = make(folder, engine, precision, pooling)
    texts = random_texts([7, 60, 128, 3, 300, 90, 33, 5, 129, 1, 480, 64])
    limit = MIN_COMPANY_COSINE[precision]
    alone = np.concatenate([encode(engine, [text]) for text in texts])
    assert cosines(encode(engine, texts), alone).min() >= limit
    order = np.random.default_rng(1).permutation(len(texts))
    assert cosines(encode(engine, [texts[i] for i in order]), alone[order]).min() >= limit
    others = random_texts([len(text) for text in texts], seed=9)
    for kept in range(0, len(texts), 4):
        changed = [text if i == kept else others[i] for i, text in enumerate(texts)]
        assert cosines(encode(engine, changed)[kept : kept + 1], alone[kept : kept + 1]).min() >= limit


@pytest.mark.parametrize(("engine", "precision"), ENGINES)
def test_a_padding_id_inside_a_text_counts_as_in_transformers(tmp_path, engine, precision):
    model = write_model(tmp_path)
    text = [0, 50, 1, 60, 1, 1, 70, 2]
    positions = type(model.embeddings).create_position_ids_from_input_ids(torch.tensor([text]), 1)
    with torch.no_grad():
        expected = model(torch.tensor([text]), position_ids=positions).last_hidden_state[0].numpy().mean(axis=0)
    found = encode(make(tmp_path, engine, precision, "mean"), [text, [0, 9, 2]])
    assert cosines(found[:1], expected[None]).min() >= MIN_COSINE[precision]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=["f16", "bf16"])
@pytest.mark.parametrize(("engine", "precision"), ENGINES)
def test_weights_stored_in_half_precision_are_computed_as_stored(tmp_path, engine, precision, dtype):
    model = write_model(tmp_path)
    stored = {name: tensor.to(dtype) for name, tensor in load_file(tmp_path / "model.safetensors").items()}
    save_file(stored, tmp_path / "model.safetensors", metadata={"format": "pt"})
    model.load_state_dict({name: tensor.to(torch.float32) for name, tensor in stored.items()}, strict=False)
    texts = random_texts((3, 40, 200))
    expected = pooled_by_transformers(model, texts, "mean")
    found = encode(make(tmp_path, engine, precision, "mean"), texts)
    assert cosines(found, expected).min() >= MIN_COSINE[precision]


def test_a_text_of_8192_tokens_needs_no_square_of_memory(tmp_path):
    """Two layers of the arctic shape; 16 heads x 8,192 x 8,192 scores would be 4.3 GB."""
    model = write_model(
        tmp_path,
        hidden_size=1024,
        num_attention_heads=16,
        intermediate_size=4096,
        max_position_embeddings=8194,
        vocab_size=VOCABULARY,
    )
    text = random_texts([8192])
    expected = pooled_by_transformers(model, text, "cls")
    del model
    gc.collect()
    engine = make(tmp_path, "openvino", "f32", "cls")
    encode(engine, random_texts([POSITIONS]))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    found = encode(engine, text)
    grown_mb = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    assert cosines(found, expected).min() >= MIN_COSINE["f32"]
    assert grown_mb < 1024


def anonymous_mb():
    status = Path("/proc/self/status").read_text()
    return int(status.split("RssAnon:")[1].split()[0]) / 1024


@pytest.fixture(scope="module", params=[torch.float32, torch.float16, torch.bfloat16], ids=["F32", "F16", "BF16"])
def large_vocabulary(request, tmp_path_factory):
    """A table of 205 MB in float32, 102 MB in half precision."""
    folder = tmp_path_factory.mktemp("large")
    write_model(folder, vocab_size=400_000, hidden_size=128, num_hidden_layers=1)
    stored = {name: tensor.to(request.param) for name, tensor in load_file(folder / "model.safetensors").items()}
    save_file(stored, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


@pytest.mark.parametrize("precision", ["f32", BF16_PARAM, INT8_PARAM])
def test_the_embedding_table_stays_in_its_file(large_vocabulary, precision):
    """Were it copied or turned into another format, the process would grow by 102 or 205 MB."""
    gc.collect()
    before = anonymous_mb()
    engine = make(large_vocabulary, "openvino", precision, "mean")
    encode(engine, random_texts([128, 300]))
    assert anonymous_mb() - before < 60
