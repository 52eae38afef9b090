"""Random models have the arctic model's shape and the real tokenizer, and tell texts apart."""

import json

import numpy as np
import pytest
from polarvec_server.models.folder import read_folder
from polarvec_server.models.random_weights import _config, _Shape, _tensors, build_random, parse_name
from polarvec_server.models.store import ModelStoreError
from safetensors import safe_open
from tokenizers import Tokenizer


@pytest.fixture(scope="module")
def tiny(cache, tiny_model):
    return build_random(tiny_model, cache / "models")


def test_tiny_says_everything(tiny):
    model = read_folder(tiny)
    assert (model.id, model.model_type, model.dimensions, model.max_tokens) == ("tiny", "xlm-roberta", 64, 8192)
    assert (model.pooling, model.normalize, model.prompts) == ("cls", True, {"query": "query: "})
    assert "random" in model.source


def test_tokenizer_is_that_of_e5_small(tiny, e5_small):
    text = "query: 데비안 배포판은 누가 만드나요?"
    both = [Tokenizer.from_file(str(folder / "tokenizer.json")).encode(text).ids for folder in (tiny, e5_small)]
    assert both[0] == both[1]


def test_arctic_has_the_arctic_shape():
    """The published model has 567,754,752 parameters; 1,049,600 of them are a pooler that nobody uses."""
    shape = _Shape(24, 1024, 16, 4096)
    tensors = _tensors(shape)
    assert sum(int(np.prod(tensor.shape)) for tensor in tensors) == 567_754_752 - 1_049_600
    assert len({tensor.name for tensor in tensors}) == len(tensors) == 5 + 24 * 16
    config = _config(shape)
    assert (config["layer_norm_eps"], config["max_position_embeddings"], config["vocab_size"]) == (1e-5, 8194, 250002)


def test_numbers_are_seeded_by_name(tiny):
    first, again = (_tensors(_Shape(layers, 64, 4, 128)) for layers in (2, 5))
    by_name = {tensor.name: tensor for tensor in again}
    with safe_open(tiny / "model.safetensors", "numpy") as weights:
        for tensor in first:
            if tensor.name == "embeddings.word_embeddings.weight":
                continue
            numbers = np.concatenate(list(by_name[tensor.name].pieces())).reshape(tensor.shape)
            assert np.array_equal(weights.get_tensor(tensor.name), numbers), tensor.name
    query, key = (by_name[f"encoder.layer.0.attention.self.{name}.weight"].pieces() for name in ("query", "key"))
    assert not np.array_equal(next(iter(query)), next(iter(key)))


@pytest.mark.filterwarnings("ignore")
def test_texts_get_clearly_different_vectors(tiny):
    torch = pytest.importorskip("torch", reason="torch, the yardstick, is not installed")
    transformers = pytest.importorskip("transformers", reason="transformers, the yardstick, is not installed")
    model = transformers.AutoModel.from_pretrained(tiny, dtype=torch.float32).eval()
    tokenizer = Tokenizer.from_file(str(tiny / "tokenizer.json"))
    rows = []
    for text in ("서울의 날씨는 어떤가요?", "The quick brown fox.", "데비안 " * 200, "데비안 배포판은 누가 만드나요?"):
        with torch.inference_mode():
            row = model(input_ids=torch.tensor([tokenizer.encode(text).ids])).last_hidden_state[0, 0].numpy()
        rows.append(row / np.linalg.norm(row))
    cosines = np.array(rows) @ np.array(rows).T
    assert np.isfinite(cosines).all()
    assert cosines[~np.eye(len(rows), dtype=bool)].max() < 0.99


def test_layers_make_another_model(tmp_path, tiny):
    folder = build_random("tiny", tmp_path, layers=1)
    assert (folder.name, read_folder(folder).id) == ("tiny-1", "tiny-1")
    assert json.loads((folder / "config.json").read_text())["num_hidden_layers"] == 1
    assert build_random("tiny", tiny.parent, layers=2) == tiny


@pytest.mark.parametrize(("kind", "layers"), [("huge", None), ("tiny", 0)])
def test_what_cannot_be_made(tmp_path, kind, layers):
    with pytest.raises(ModelStoreError):
        build_random(kind, tmp_path, layers)


@pytest.mark.parametrize(
    ("name", "parsed"),
    [
        ("tiny", ("tiny", None)),
        ("arctic-l", ("arctic-l", None)),
        ("arctic-l-2", ("arctic-l", 2)),
        ("arctic-l-v2", None),
        ("e5-small", None),
        ("tiny-0", None),
    ],
)
def test_names_of_random_models(name, parsed):
    assert parse_name(name) == parsed
