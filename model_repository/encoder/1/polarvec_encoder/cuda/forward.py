"""The forward pass, written once: packed rows in, one pooled vector a text out, on whichever operators it is given."""

from __future__ import annotations

import torch
from torch import Tensor

from polarvec_encoder.architecture import Architecture, Pooling
from polarvec_encoder.cuda.layout import PassInputs
from polarvec_encoder.cuda.operators import Gelu, Linear, Norm, Operators, Rows, pick_rows
from polarvec_encoder.cuda.weights import DeviceWeights, Layer


class Forward:
    """A model ready to run; it holds no state between passes and allocates nothing that outlives one."""

    def __init__(
        self,
        weights: DeviceWeights,
        operators: Operators,
        architecture: Architecture,
        pooling: Pooling,
        gelu: Gelu,
        residual_in_product: bool,
    ) -> None:
        self._weights, self._operators, self._pooling, self._gelu = weights, operators, pooling, gelu
        self._columns, self._heads = architecture.hidden, architecture.heads
        self._residual_in_product = residual_in_product
        self._quantize = weights.layers[0].query_key_value.scales is not None

    def __call__(self, inputs: PassInputs[Tensor]) -> Tensor:
        """Compute (P, C) float32 pooled vectors, not normalized; those of pick -1 are finite and mean nothing."""
        weights = self._weights
        rows = self._operators.embed(
            inputs.token_ids, inputs.positions, weights.words, weights.places, weights.norm, self._quantize
        )
        for layer in weights.layers[:-1]:
            rows = self._layer(layer, rows, inputs)
        last = weights.layers[-1]
        if self._pooling == "mean":
            return self._operators.mean(self._layer(last, rows, inputs).values, inputs.picks, inputs.ends)
        return self._single_rows(last, rows, inputs)

    def _layer(self, layer: Layer, rows: Rows, inputs: PassInputs[Tensor]) -> Rows:
        qkv = self._operators.multiply(rows, layer.query_key_value, bias=True)
        attended = self._operators.attend(qkv, inputs.starts, inputs.ends, self._heads)
        return self._after_attention(layer, attended, rows, rows.values.dtype)

    def _single_rows(self, layer: Layer, rows: Rows, inputs: PassInputs[Tensor]) -> Tensor:
        """The last layer for one row a text: exact, and all but the keys' and values' product of it saved."""
        columns = self._columns
        picked = pick_rows(rows, inputs.picks)
        query = self._operators.multiply(picked, layer.query_key_value.slice(0, columns), bias=True)
        key_value = self._operators.multiply(rows, layer.query_key_value.slice(columns, 3 * columns), bias=False)
        attended = self._operators.attend_picked(
            query, key_value, inputs.picks, inputs.starts, inputs.ends, self._heads
        )
        return self._after_attention(layer, attended, picked, torch.float32).values

    def _after_attention(self, layer: Layer, attended: Tensor, residual: Rows, out: torch.dtype) -> Rows:
        """What follows attention, row by row; the layer's result comes in the format `out`."""
        form = residual.values.dtype
        middle = self._add(Rows(attended), layer.attended, residual, layer.attended_norm, self._quantize, form)
        outer_wants_float8 = self._quantize and out == form
        inner = self._inner(layer.inner, middle)
        return self._add(inner, layer.outer, middle, layer.outer_norm, outer_wants_float8, out)

    def _inner(self, linear: Linear, rows: Rows) -> Rows:
        if self._gelu == "tanh" and linear.scales is None:
            return Rows(self._operators.multiply_gelu_tanh(rows, linear))
        product = self._operators.multiply(rows, linear, bias=False)
        return self._operators.gelu(product, linear.bias, self._gelu, self._quantize)

    def _add(self, rows: Rows, linear: Linear, residual: Rows, norm: Norm, quantize: bool, out: torch.dtype) -> Rows:
        """Layer norm of the product, its bias and the residual."""
        if self._residual_in_product:
            summed = self._operators.add_product(rows, linear, residual.values)
            return self._operators.normalize(summed, linear.bias, None, norm, quantize, out)
        product = self._operators.multiply(rows, linear, bias=False)
        return self._operators.normalize(product, linear.bias, residual.values, norm, quantize, out)
