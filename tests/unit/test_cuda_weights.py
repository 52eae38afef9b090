"""Weights reach the device fused and folded, and what the GPU engine cannot run is refused with a reason."""

import numpy as np
import pytest
import torch
from encoder_folders import write_model
from polarvec_encoder.architecture import read_architecture
from polarvec_encoder.cuda.operators import FP8, FP8_MAX
from polarvec_encoder.cuda.reference import quantize_rows
from polarvec_encoder.cuda.support import check_support
from polarvec_encoder.cuda.weights import load_weights
from polarvec_encoder.errors import ChoiceRefused
from polarvec_encoder.weights import open_weights


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bert")
    return folder, dict(write_model(folder, "bert").named_parameters())


def load(folder, precision):
    architecture = read_architecture(folder)
    return load_weights(open_weights(folder, architecture), architecture, precision, torch.device("cpu"))


def test_projections_are_fused_and_queries_scaled(model):
    folder, stored = model
    layer = load(folder, "f32").layers[1]
    attention = "encoder.layer.1.attention.self"
    fused = layer.query_key_value
    assert fused.weight.shape == (192, 64)
    torch.testing.assert_close(fused.weight[:64], stored[f"{attention}.query.weight"] / 4)
    torch.testing.assert_close(fused.weight[64:128], stored[f"{attention}.key.weight"])
    torch.testing.assert_close(fused.weight[128:], stored[f"{attention}.value.weight"])
    torch.testing.assert_close(fused.bias[:64], stored[f"{attention}.query.bias"] / 4)
    assert not fused.bias[64:].any()


def test_the_biases_of_keys_and_values_go_where_they_cost_nothing(model):
    folder, stored = model
    layer = load(folder, "f32").layers[0]
    output = "encoder.layer.0.attention.output.dense"
    passed = stored[f"{output}.weight"] @ stored["encoder.layer.0.attention.self.value.bias"]
    torch.testing.assert_close(layer.attended.bias, passed + stored[f"{output}.bias"])


def test_the_token_type_joins_the_positions_in_float32(model):
    folder, stored = model
    weights = load(folder, "bf16")
    expected = stored["embeddings.position_embeddings.weight"] + stored["embeddings.token_type_embeddings.weight"][0]
    torch.testing.assert_close(weights.places, expected)
    assert weights.places.dtype == torch.float32 and weights.words.dtype == torch.bfloat16


def test_float8_weights_are_within_half_a_step(model):
    folder, stored = model
    layer = load(folder, "fp8").layers[0]
    assert {linear.weight.dtype for linear in (layer.query_key_value, layer.inner, layer.outer)} == {FP8}
    assert layer.attended.weight.dtype == torch.bfloat16
    weight = stored["encoder.layer.0.intermediate.dense.weight"]
    found = layer.inner.weight.float() * layer.inner.scales[:, None]
    # Three bits of mantissa: half a step is 2^-4 of a number, or of the smallest normal one, 2^-6 * scale.
    limit = torch.maximum(weight.abs() / 16, layer.inner.scales[:, None] * 2**-10)
    assert ((found - weight).abs() <= limit * 1.001).all()


def test_quantized_rows_reach_the_largest_float8_and_zeros_stay_zeros():
    rows = torch.zeros(3, 16)
    rows[0, 3], rows[1] = -7.0, torch.linspace(-1e-3, 1e-3, 16)
    quantized, scales = quantize_rows(rows)
    assert quantized.float().abs().amax(dim=1).tolist() == [FP8_MAX, FP8_MAX, 0.0]
    assert np.isfinite(scales.numpy()).all() and (scales > 0).all()


@pytest.mark.parametrize(
    ("precision", "gelu", "device", "words"),
    [
        ("int8", "erf", "cpu", "f32, bf16, fp16, fp8"),
        ("bf16", "relu", "cpu", "choose erf or tanh"),
        ("bf16", "tanh", "cuda", "sees no NVIDIA GPU"),
    ],
)
def test_what_cannot_run_is_refused_with_a_reason(model, precision, gelu, device, words):
    if device == "cuda" and torch.cuda.is_available():
        pytest.skip("there is a GPU here")
    with pytest.raises(ChoiceRefused, match=words):
        check_support(read_architecture(model[0]), precision, gelu, device)
