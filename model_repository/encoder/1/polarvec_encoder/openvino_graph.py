"""The encoder as a graph of OpenVINO operators, built straight from the safetensors files; pooling is part of it.

Linear weights are constants that share the mapped files where these hold float32, so nothing is copied at build time.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import openvino as ov
from numpy.typing import NDArray
from openvino import opset15 as op

from polarvec_encoder.architecture import Architecture, Pooling
from polarvec_encoder.tensor_table import layer_name
from polarvec_encoder.weights import Weights

# OpenVINO's Python operators return one type, whose generated stubs leave much open.
_Node = Any
_STORED_TYPES = {"F16": ov.Type.f16, "BF16": ov.Type.bf16}


def build_graph(architecture: Architecture, weights: Weights, pooling: Pooling) -> ov.Model:
    """Build the model for rows of texts (see `rows.py`); its output is (k, D) float32.

    Inputs: token_ids and position_ids (R, S) i32, mask (R, 1, 1 or S, S) f32; for mean pooling places (L,) and owners
    (L,) i32, count () i32 and scales (k, 1) f32; otherwise picks (R, P) i32, pick_mask (R, 1, 1 or P, S) f32 and
    answers (k,) i32.
    """
    return _Builder(architecture, weights).model(pooling)


class _Builder:
    def __init__(self, architecture: Architecture, weights: Weights) -> None:
        self._architecture, self._weights = architecture, weights
        self._inputs: list[_Node] = []

    def model(self, pooling: Pooling) -> ov.Model:
        token_ids = self._input("token_ids", [-1, -1], ov.Type.i32)
        position_ids = self._input("position_ids", [-1, -1], ov.Type.i32)
        mask = self._input("mask", [-1, 1, -1, -1], ov.Type.f32)
        hidden = self._embeddings(token_ids, position_ids)
        last = self._architecture.layers - 1
        for layer in range(last):
            hidden = self._layer(layer, hidden, hidden, mask)
        if pooling == "mean":
            pooled = self._mean(self._layer(last, hidden, hidden, mask))
        else:
            pooled = self._single_row(last, hidden)
        return ov.Model([op.result(pooled)], self._inputs, f"{self._architecture.model_type}-{pooling}")

    def _embeddings(self, token_ids: _Node, position_ids: _Node) -> _Node:
        words = op.gather(self._constant("embeddings.word_embeddings.weight"), token_ids, _ints(0))
        places = op.gather(self._constant("embeddings.position_embeddings.weight"), position_ids, _ints(0))
        kind = op.constant(self._weights.float32("embeddings.token_type_embeddings.weight")[0].copy())
        return self._layer_norm("embeddings.LayerNorm", op.add(op.add(words, places), kind))

    def _layer(self, layer: int, queries: _Node, keys: _Node, mask: _Node) -> _Node:
        """One post-LN layer; `queries` are the rows wanted out of it, `keys` all rows."""
        attended = self._attention(layer, queries, keys, mask)
        projected = self._dense(layer_name(layer, "attention.output.dense"), attended)
        attended = self._layer_norm(layer_name(layer, "attention.output.LayerNorm"), op.add(projected, queries))
        inner = op.gelu(self._dense(layer_name(layer, "intermediate.dense"), attended), "erf")
        outer = self._dense(layer_name(layer, "output.dense"), inner)
        return self._layer_norm(layer_name(layer, "output.LayerNorm"), op.add(outer, attended))

    def _attention(self, layer: int, queries: _Node, keys: _Node, mask: _Node) -> _Node:
        query, key, value = (
            self._heads(self._dense(layer_name(layer, f"attention.self.{part}"), rows))
            for part, rows in (("query", queries), ("key", keys), ("value", keys))
        )
        scale = op.constant(np.float32(self._architecture.head_dimensions**-0.5))
        attended = op.scaled_dot_product_attention(query, key, value, mask, scale, False)
        joined = op.transpose(attended, _ints([0, 2, 1, 3]))
        return op.reshape(joined, _ints([0, 0, self._architecture.hidden]), special_zero=True)

    def _heads(self, rows: _Node) -> _Node:
        shape = _ints([0, 0, self._architecture.heads, self._architecture.head_dimensions])
        return op.transpose(op.reshape(rows, shape, special_zero=True), _ints([0, 2, 1, 3]))

    def _mean(self, hidden: _Node) -> _Node:
        """Sum each text's tokens in float32 (OpenVINO keeps what follows the last matrix product so) and divide."""
        places = self._input("places", [-1], ov.Type.i32)
        owners = self._input("owners", [-1], ov.Type.i32)
        count = self._input("count", [], ov.Type.i32)
        scales = self._input("scales", [-1, 1], ov.Type.f32)
        return op.multiply(op.embedding_segments_sum(self._flat(hidden), places, owners, count), scales)

    def _single_row(self, layer: int, hidden: _Node) -> _Node:
        """The last layer for one token a text only: exact, and 80 % of that layer's work less."""
        picks = self._input("picks", [-1, -1], ov.Type.i32)
        mask = self._input("pick_mask", [-1, 1, -1, -1], ov.Type.f32)
        answers = self._input("answers", [-1], ov.Type.i32)
        queries = op.gather(self._flat(hidden), picks, _ints(0))
        return op.gather(self._flat(self._layer(layer, queries, hidden, mask)), answers, _ints(0))

    def _flat(self, hidden: _Node) -> _Node:
        return op.reshape(hidden, _ints([-1, self._architecture.hidden]), special_zero=False)

    def _layer_norm(self, name: str, rows: _Node) -> _Node:
        centred = op.mvn(rows, _ints([-1]), True, self._architecture.layer_norm_eps, "inside_sqrt")
        return op.add(op.multiply(centred, self._constant(f"{name}.weight")), self._constant(f"{name}.bias"))

    def _dense(self, name: str, rows: _Node) -> _Node:
        product = op.matmul(rows, self._constant(f"{name}.weight"), transpose_a=False, transpose_b=True)
        return op.add(product, self._constant(f"{name}.bias"))

    def _constant(self, name: str) -> _Node:
        stored_type = _STORED_TYPES.get(self._weights.tensors[name].dtype)
        if stored_type is None:
            return op.constant(self._weights.float32(name), shared_memory=True)
        stored = self._weights.stored(name)
        constant = op.constant(ov.Tensor(np.require(stored, requirements=["ALIGNED"]), stored.shape, stored_type))
        return op.convert(constant, "f32")

    def _input(self, name: str, shape: list[int], kind: ov.Type) -> _Node:
        node = op.parameter(ov.PartialShape(shape), kind, name=name)
        node.output(0).set_names({name})
        self._inputs.append(node)
        return node


def _ints(values: int | list[int]) -> _Node:
    array: NDArray[np.int64] = np.array(values, np.int64)
    return op.constant(array)
