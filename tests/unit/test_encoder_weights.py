"""Weights that do not fit are refused; weights that do come back as they are stored."""

import json
import struct

import numpy as np
import pytest
import torch
from encoder_folders import write_model
from polarvec_encoder.architecture import read_architecture
from polarvec_encoder.errors import ModelRefused
from polarvec_encoder.weights import check_weights, open_weights
from safetensors.torch import load_file, save_file

QUERY = "encoder.layer.1.attention.self.query.weight"


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    folder = tmp_path_factory.mktemp("original")
    write_model(folder)
    return folder


@pytest.fixture
def folder(original, tmp_path):
    (tmp_path / "config.json").write_bytes((original / "config.json").read_bytes())
    return tmp_path


def tensors_of(original):
    return load_file(original / "model.safetensors")


def check(folder):
    return check_weights(folder, read_architecture(folder))


def missing(tensors):
    del tensors[QUERY]


def unexpected(tensors):
    tensors["encoder.layer.2.output.dense.bias"] = torch.zeros(64)


def misshapen(tensors):
    tensors[QUERY] = torch.zeros(64, 63)


def transposed(tensors):
    tensors["encoder.layer.0.output.dense.weight"] = tensors["encoder.layer.0.output.dense.weight"].T.contiguous()


def integers(tensors):
    tensors[QUERY] = torch.zeros(64, 64, dtype=torch.int8)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (missing, f"lacks tensor {QUERY}"),
        (unexpected, "unexpected tensor encoder.layer.2.output.dense.bias"),
        (misshapen, r"shape \[64, 63\]"),
        (transposed, r"shape \[128, 64\]"),
        (integers, "is I8"),
    ],
)
def test_tensors_that_do_not_fit_are_refused(original, folder, damage, message):
    tensors = tensors_of(original)
    damage(tensors)
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(ModelRefused, match=message):
        check(folder)


@pytest.mark.parametrize("prefix", ["", "roberta.", "bert.", "model."])
def test_a_prefix_and_heads_of_pre_training_are_accepted(original, folder, prefix):
    tensors = {prefix + name: tensor for name, tensor in tensors_of(original).items()}
    for name in ("pooler.dense.weight", "embeddings.position_ids"):
        tensors[prefix + name] = torch.zeros(3)
    tensors["lm_head.bias"] = torch.zeros(3)
    tensors["cls.predictions.bias"] = torch.zeros(3)
    save_file(tensors, folder / "model.safetensors")
    assert set(check(folder)) == set(tensors_of(original))


def test_sharded_weights_are_read_through_their_index(original, folder):
    tensors = tensors_of(original)
    names = sorted(tensors)
    weight_map = {}
    for shard, part in enumerate((names[:10], names[10:])):
        file = f"model-{shard}.safetensors"
        save_file({name: tensors[name] for name in part}, folder / file)
        weight_map |= dict.fromkeys(part, file)
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": weight_map}))
    weights = open_weights(folder, read_architecture(folder))
    for name in names:
        np.testing.assert_array_equal(weights.float32(name), tensors[name].numpy())
    (folder / "model-1.safetensors").unlink()
    with pytest.raises(ModelRefused, match=r"lacks model-1\.safetensors"):
        check(folder)


@pytest.mark.parametrize("name", ["../model.safetensors", "model.bin", 3])
def test_an_index_that_points_elsewhere_is_refused(folder, name):
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": name}}))
    with pytest.raises(ModelRefused, match="index"):
        check(folder)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_all_three_number_formats_come_back_as_float32(original, folder, dtype):
    tensors = {name: tensor.to(dtype) for name, tensor in tensors_of(original).items()}
    save_file(tensors, folder / "model.safetensors")
    weights = open_weights(folder, read_architecture(folder))
    for name, tensor in tensors.items():
        np.testing.assert_array_equal(weights.float32(name), tensor.to(torch.float32).numpy())
    weights.release_pages()
    np.testing.assert_array_equal(weights.float32(QUERY), tensors[QUERY].to(torch.float32).numpy())


def test_pickles_are_refused_by_name(folder):
    (folder / "pytorch_model.bin").write_bytes(b"\x80\x04N.")
    with pytest.raises(ModelRefused, match=r"pickled weights only \(pytorch_model\.bin\)"):
        check(folder)


def test_a_folder_without_weights_is_refused(folder):
    with pytest.raises(ModelRefused, match=r"no model\.safetensors"):
        check(folder)


def cut(data):
    return data[:-100]


def empty(data):
    return b""


def long_header(data):
    return struct.pack("<Q", 1 << 60) + data[8:]


def not_json(data):
    return data[:8] + b"x" + data[9:]


def negative_offset(data):
    header = json.dumps({QUERY: {"dtype": "F32", "shape": [1], "data_offsets": [-4, 0]}}).encode()
    return struct.pack("<Q", len(header)) + header


@pytest.mark.parametrize("damage", [cut, empty, long_header, not_json, negative_offset])
def test_a_damaged_file_is_refused(original, folder, damage):
    data = (original / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(damage(data))
    with pytest.raises(ModelRefused, match="not a whole safetensors file"):
        check(folder)
