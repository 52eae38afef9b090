"""The GPU engine's forward pass on reference operators: the vectors of transformers, whatever shares the pass.

Layout, packing, positions, sizes, padding, the single-row last layer, pooling and buffers are the same code on a GPU.
"""

import threading

import numpy as np
import pytest
import torch
from polarvec_encoder.architecture import read_architecture
from polarvec_encoder.batch import PackedBatch
from polarvec_encoder.cuda.engine import CudaEngine
from polarvec_encoder.cuda.passes import pass_sizes
from polarvec_encoder.cuda.tuning import Tuning
from polarvec_encoder.engine import encode_all
from safetensors.torch import load_file, save_file
from test_engine_parity import cosines, pooled_by_transformers, random_texts
from unit.encoder_folders import write_model

LENGTHS = (1, 2, 3, 16, 127, 128, 129, 512)
POOLINGS = ("cls", "mean", "last_token")
# Two sizes of float32 addition and of summing order; 1e-5 is the bar.
MAX_DIFFERENCE, MIN_COSINE = 1e-5, 0.999999
SMALL = Tuning(pass_tokens=1024)


def make(folder, pooling, precision="f32", gelu="erf", tuning=SMALL):
    return CudaEngine(folder, read_architecture(folder), pooling, precision, gelu, device="cpu", tuning=tuning)


def encode(engine, texts):
    return encode_all(engine, PackedBatch.of_texts(texts))


def assert_same(found, expected):
    assert np.abs(found - expected).max() <= MAX_DIFFERENCE
    assert cosines(found, expected).min() >= MIN_COSINE


@pytest.fixture(scope="module", params=["xlm-roberta", "bert"])
def tiny(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    return folder, write_model(folder, request.param)


@pytest.fixture(scope="module")
def engine(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shared")
    write_model(folder, max_position_embeddings=1026)
    return make(folder, "cls")


@pytest.mark.parametrize("pooling", POOLINGS)
def test_vectors_are_those_of_transformers(tiny, pooling):
    folder, model = tiny
    texts = random_texts(LENGTHS)
    expected = pooled_by_transformers(model, texts, pooling)
    assert (cosines(expected[1:], expected[:-1]) < 0.99).all()
    found = encode(make(folder, pooling), texts)
    assert found.dtype == np.float32
    assert_same(found, expected)


@pytest.mark.parametrize("residual_in_product", [False, True])
@pytest.mark.parametrize(
    ("precision", "gelu", "limit"),
    [("bf16", "erf", 0.9999), ("bf16", "tanh", 0.9999), ("fp16", "tanh", 0.99999), ("fp8", "tanh", 0.99)],
)
def test_lower_precisions_stay_near(tiny, precision, gelu, limit, residual_in_product):
    """The kernels' rounding, imitated; what it says of a real model's quality stands in docs/decisions."""
    folder, model = tiny
    texts = random_texts(LENGTHS)
    tuning = Tuning(pass_tokens=1024, residual_in_product=residual_in_product)
    found = encode(make(folder, "mean", precision, gelu, tuning), texts)
    assert cosines(found, pooled_by_transformers(model, texts, "mean")).min() >= limit


def test_the_tanh_form_is_another_function(tiny):
    """Or the test above would show nothing of it: up to 5e-4 a number, where exact forms agree to 1e-5."""
    folder, _ = tiny
    texts = random_texts((20, 30))
    difference = np.abs(encode(make(folder, "cls", gelu="tanh"), texts) - encode(make(folder, "cls"), texts)).max()
    assert 5 * MAX_DIFFERENCE < difference < 0.01


@pytest.mark.parametrize("pooling", POOLINGS)
def test_a_text_of_8192_tokens_shares_a_pass(tmp_path, pooling):
    model = write_model(tmp_path, max_position_embeddings=8194)
    texts = random_texts((3, 8192, 120))
    engine = make(tmp_path, pooling, tuning=Tuning())
    assert_same(encode(engine, texts), pooled_by_transformers(model, texts, pooling))


def test_a_text_longer_than_the_largest_size_runs_by_itself(tmp_path):
    model = write_model(tmp_path, max_position_embeddings=3002)
    texts = random_texts((40, 2999, 7))
    assert_same(encode(make(tmp_path, "mean"), texts), pooled_by_transformers(model, texts, "mean"))


@pytest.mark.parametrize("size", pass_sizes(1024))
def test_a_vector_is_the_same_on_both_sides_of_every_size(engine, size):
    """The text alone, and with company that fills its pass to a size less one token, exactly, and one more."""
    text = random_texts([37], seed=3)
    alone = encode(engine, text)
    for total in (size - 1, size, size + 1):
        rest = [min(300, total - 37 - place) for place in range(0, total - 37, 300)]
        company = random_texts(rest, seed=total)
        assert_same(encode(engine, text + company)[:1], alone)
        assert_same(encode(engine, company + text)[-1:], alone)


def test_changing_one_text_leaves_the_others_as_they_were(engine):
    texts = random_texts([7, 60, 128, 3, 300, 90, 33, 5, 129, 1, 480, 64])
    before, others = encode(engine, texts), random_texts([len(text) for text in texts], seed=9)
    for changed in range(len(texts)):
        after = encode(engine, [others[i] if i == changed else text for i, text in enumerate(texts)])
        kept = np.arange(len(texts)) != changed
        np.testing.assert_array_equal(after[kept], before[kept])
        assert len(texts[changed]) == 1 or cosines(after[[changed]], before[[changed]])[0] < 0.999


def test_order_does_not_matter(engine):
    texts = random_texts([7, 60, 128, 3, 300, 90, 33, 5, 129, 1, 480, 64])
    order = np.random.default_rng(1).permutation(len(texts))
    assert_same(encode(engine, [texts[i] for i in order]), encode(engine, texts)[order])


def test_the_same_pack_gives_the_same_bits(engine):
    texts = random_texts([7, 60, 128, 3, 300, 90, 700, 900])
    first = encode(engine, texts)
    encode(engine, random_texts([1000, 2, 30]))
    np.testing.assert_array_equal(encode(engine, texts), first)


def poison(engine):
    """Fills every buffer between passes with NaN, and the integers with numbers that name no row."""
    for slot in engine._runner.slots:
        slot.vectors.fill_(float("nan"))
        slot.host_vectors.fill_(float("nan"))
        slot.inputs.fill_(-(1 << 30))
        slot.host_inputs.fill_(-(1 << 30))


def test_nothing_left_in_a_buffer_reaches_a_vector(engine):
    small, large = random_texts([5, 9]), random_texts([400, 300, 128, 90, 80])
    expected = encode(engine, small), encode(engine, large)
    for texts, vectors in [(small, expected[0]), (large, expected[1]), (small, expected[0])]:
        poison(engine)
        np.testing.assert_array_equal(encode(engine, texts), vectors)


def test_a_padding_id_inside_a_text_counts_as_in_transformers(tmp_path):
    model = write_model(tmp_path)
    text = [0, 50, 1, 60, 1, 1, 70, 2]
    positions = type(model.embeddings).create_position_ids_from_input_ids(torch.tensor([text]), 1)
    with torch.no_grad():
        expected = model(torch.tensor([text]), position_ids=positions).last_hidden_state[0].numpy().mean(axis=0)
    assert_same(encode(make(tmp_path, "mean"), [text, [0, 9, 2]])[:1], expected[None])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=["f16", "bf16"])
def test_weights_stored_in_half_precision_are_computed_as_stored(tmp_path, dtype):
    model = write_model(tmp_path)
    stored = {name: tensor.to(dtype) for name, tensor in load_file(tmp_path / "model.safetensors").items()}
    save_file(stored, tmp_path / "model.safetensors", metadata={"format": "pt"})
    model.load_state_dict({name: tensor.to(torch.float32) for name, tensor in stored.items()}, strict=False)
    texts = random_texts((3, 40, 200))
    assert_same(encode(make(tmp_path, "cls"), texts), pooled_by_transformers(model, texts, "cls"))


def test_a_vector_that_is_not_finite_leaves_the_others_alone(tmp_path):
    write_model(tmp_path)
    stored = load_file(tmp_path / "model.safetensors")
    stored["embeddings.word_embeddings.weight"][42] = float("inf")
    save_file(stored, tmp_path / "model.safetensors", metadata={"format": "pt"})
    engine = make(tmp_path, "cls")
    healthy = random_texts([5], seed=2)
    healthy = [[token for token in text if token != 42] or [7] for text in healthy]
    expected = encode(engine, healthy)
    found = encode(engine, [[3, 42, 5], *healthy])
    assert not np.isfinite(found[0]).any()
    np.testing.assert_allclose(found[1:], expected, atol=1e-5)


def test_batches_are_started_before_they_are_read_and_read_on_another_thread(engine):
    batches = [random_texts([20, 900, 300], seed=seed) for seed in range(4)]
    expected = [encode(engine, texts) for texts in batches]
    started = [engine.encode(PackedBatch.of_texts(texts)) for texts in batches]
    found = []

    def read():
        for answers in reversed(started):
            found.append(np.concatenate([vectors for _, vectors in answers]))

    reader = threading.Thread(target=read)
    reader.start()
    reader.join(60)
    for vectors, wanted in zip(reversed(found), expected, strict=True):
        np.testing.assert_array_equal(vectors, wanted)
    assert engine.batches_in_flight == 2


def test_many_random_batches_need_no_more_memory(engine):
    """Static buffers stay the same tensors of the same size, and every batch is right."""
    rng = np.random.default_rng(8)
    texts = random_texts(rng.integers(1, 200, 40), seed=8)
    alone = np.concatenate([encode(engine, [text]) for text in texts])
    buffers = [(slot.vectors.data_ptr(), slot.device_bytes) for slot in engine._runner.slots]
    for _ in range(60):
        chosen = rng.integers(0, len(texts), rng.integers(1, 12))
        assert_same(encode(engine, [texts[i] for i in chosen]), alone[chosen])
    assert [(slot.vectors.data_ptr(), slot.device_bytes) for slot in engine._runner.slots] == buffers
    assert not engine._pipeline._under_way and len(engine._pipeline._free) == len(buffers)


def test_the_description_names_what_runs_and_its_memory(engine):
    assert "f32, erf GELU, on the CPU with reference operators" in engine.description
    assert "buffers" in engine.description and "weights" in engine.description
