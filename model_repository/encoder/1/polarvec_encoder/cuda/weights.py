"""A model's weights on the device: fused, scaled and folded in float32, then rounded to the precision's format."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from polarvec_encoder.architecture import Architecture
from polarvec_encoder.cuda.operators import Linear, Norm
from polarvec_encoder.cuda.reference import quantize_rows
from polarvec_encoder.tensor_table import layer_name
from polarvec_encoder.weights import Weights

FORMATS = {"f32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16, "fp8": torch.bfloat16}
"""The number format of activations, and of every weight that is not float8, by precision."""


@dataclass(frozen=True, slots=True)
class Layer:
    """One encoder layer."""

    query_key_value: Linear
    """(3C, C); queries come out scaled by 1 / sqrt(head dimensions)."""
    attended: Linear
    attended_norm: Norm
    inner: Linear
    outer: Linear
    outer_norm: Norm


@dataclass(frozen=True, slots=True)
class DeviceWeights:
    """Everything that a forward pass reads besides its inputs."""

    words: Tensor
    """(V, C) in the precision's format."""
    places: Tensor
    """(positions, C) float32, the token type's row added."""
    norm: Norm
    layers: tuple[Layer, ...]

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """Every tensor; a slice counts as one of its own."""
        found = [self.words, self.places, self.norm.gain, self.norm.shift]
        for layer in self.layers:
            for linear in (layer.query_key_value, layer.attended, layer.inner, layer.outer):
                found += [linear.weight, linear.bias, linear.rounded_bias]
                found += [] if linear.scales is None else [linear.scales]
            for norm in (layer.attended_norm, layer.outer_norm):
                found += [norm.gain, norm.shift]
        return tuple(found)


def load_weights(weights: Weights, architecture: Architecture, precision: str, device: torch.device) -> DeviceWeights:
    """Bring a model to the device.

    Args:
        weights: The checked tensors of the folder.
        architecture: What its config.json says.
        precision: A key of `FORMATS`; for "fp8" the products of the attention's input and of the feed-forward block
            take float8 weights with a scale for each output, all else is bf16.
        device: Where to.
    """
    return _Loader(weights, architecture, precision, device).load()


class _Loader:
    def __init__(self, weights: Weights, architecture: Architecture, precision: str, device: torch.device) -> None:
        self._weights, self._architecture, self._device = weights, architecture, device
        self._format, self._quantize = FORMATS[precision], precision == "fp8"

    def load(self) -> DeviceWeights:
        kind = self._exact("embeddings.token_type_embeddings.weight")[0]
        return DeviceWeights(
            words=self._stored("embeddings.word_embeddings.weight").to(self._format),
            places=self._exact("embeddings.position_embeddings.weight") + kind,
            norm=self._norm("embeddings.LayerNorm"),
            layers=tuple(self._layer(layer) for layer in range(self._architecture.layers)),
        )

    def _layer(self, layer: int) -> Layer:
        def exact(part: str) -> Tensor:
            return self._exact(layer_name(layer, part))

        scale = self._architecture.head_dimensions**-0.5
        query, key, value = (exact(f"attention.self.{part}.weight") for part in ("query", "key", "value"))
        query_bias = exact("attention.self.query.bias") * scale
        # A key's bias adds the same to every score of a query, which softmax takes out again; a value's bias passes
        # through the weights, which sum to 1, straight into the next product.
        attended = exact("attention.output.dense.weight")
        passed = attended @ exact("attention.self.value.bias") + exact("attention.output.dense.bias")
        bias = torch.cat([query_bias, torch.zeros_like(query_bias), torch.zeros_like(query_bias)])
        return Layer(
            query_key_value=self._linear(torch.cat([query * scale, key, value]), bias, self._quantize),
            attended=self._linear(attended, passed, quantize=False),
            attended_norm=self._norm(layer_name(layer, "attention.output.LayerNorm")),
            inner=self._linear(exact("intermediate.dense.weight"), exact("intermediate.dense.bias"), self._quantize),
            outer=self._linear(exact("output.dense.weight"), exact("output.dense.bias"), self._quantize),
            outer_norm=self._norm(layer_name(layer, "output.LayerNorm")),
        )

    def _linear(self, weight: Tensor, bias: Tensor, quantize: bool) -> Linear:
        if quantize:
            quantized, scales = quantize_rows(weight)
            return Linear(quantized, bias, bias.to(self._format), scales)
        return Linear(weight.to(self._format).contiguous(), bias, bias.to(self._format))

    def _norm(self, name: str) -> Norm:
        gain, shift = self._exact(f"{name}.weight"), self._exact(f"{name}.bias")
        return Norm(gain, shift, self._architecture.layer_norm_eps)

    def _exact(self, name: str) -> Tensor:
        return self._stored(name).float()

    def _stored(self, name: str) -> Tensor:
        """One tensor on the device in its stored format; on the CPU it may be the mapped file itself."""
        stored = self._weights.stored(name)
        if self._weights.tensors[name].dtype == "BF16":
            # numpy has no bfloat16; torch reads the same bits.
            return _from_numpy(stored.view("<i2")).view(torch.bfloat16).to(self._device)
        return _from_numpy(stored).to(self._device)


def _from_numpy(array: NDArray[Any]) -> Tensor:
    return torch.from_numpy(np.require(array, requirements=["ALIGNED", "C_CONTIGUOUS"]))
