"""The encoder as a graph of OpenVINO operators, built straight from the safetensors files; pooling is part of it.

Weights are constants that share the mapped files, whatever their number format, so nothing is copied at build time.

Where linear weights are int8, the rows that meet them are quantised too, each token by its own largest value: divided
by it, rounded to -127 to 127 by a FakeQuantize of fixed range, multiplied as integers, and scaled back. OpenVINO turns
that into an integer product on AMX and on VNNI. Its own run-time quantisation (DYNAMIC_QUANTIZATION_GROUP_SIZE) is as
fast on VNNI, but computes in float32 on a CPU with AMX (8 x 128 tokens, 12 x 384: linear layers 60 ms against 13).

The rows that meet the value matrix are quantised twice, the second time what rounding left over: values reach the
output without a softmax between, and half of all error came from there (e5-small on the Korean FAQ, mean of 1 - cosine
to float32 0.00074 without and 0.00037 with it; nDCG@10 up to 0.009 less without and 0.001 with it).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import openvino as ov
from numpy.typing import NDArray
from openvino import opset15 as op

from polarvec_encoder.architecture import Architecture, Pooling
from polarvec_encoder.quantisation import INT8_MAX
from polarvec_encoder.tensor_table import layer_name, scale_name
from polarvec_encoder.weights import Weights

# OpenVINO's Python operators return one type, whose generated stubs leave much open.
_Node = Any
_STORED_TYPES = {"F16": ov.Type.f16, "BF16": ov.Type.bf16}


def build_graph(architecture: Architecture, weights: Weights, pooling: Pooling, keep_narrow: bool = False) -> ov.Model:
    """Build the model for rows of texts (see `rows.py`); its output is (k, D) float32.

    Args:
        architecture: What to build.
        weights: Its tensors; int8 linear weights have their scales beside them.
        pooling: How token vectors become one.
        keep_narrow: Never hold 16-bit weights in float32; for inference in 16 bits, in float32 it costs a tenth.

    Inputs: token_ids and position_ids (R, S) i32, mask (R, 1, 1 or S, S) f32; for mean pooling places (L,) and owners
    (L,) i32, count () i32 and scales (k, 1) f32; otherwise picks (R, P) i32, pick_mask (R, 1, 1 or P, S) f32 and
    answers (k,) i32.
    """
    return _Builder(architecture, weights, keep_narrow).model(pooling)


class _Builder:
    def __init__(self, architecture: Architecture, weights: Weights, keep_narrow: bool) -> None:
        self._architecture, self._weights, self._keep_narrow = architecture, weights, keep_narrow
        self._inputs: list[_Node] = []
        self._quantised: dict[str, tuple[_Node, _Node, _Node]] = {}

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
        words = self._lookup("embeddings.word_embeddings.weight", token_ids)
        places = self._lookup("embeddings.position_embeddings.weight", position_ids)
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
        weight = f"{name}.weight"
        if self._weights.tensors[weight].dtype == "I8":
            product = self._integer_product(weight, rows, twice=name.endswith("attention.self.value"))
        else:
            product = op.matmul(rows, self._constant(weight), transpose_a=False, transpose_b=True)
        return op.add(product, self._constant(f"{name}.bias"))

    def _integer_product(self, weight: str, rows: _Node, twice: bool) -> _Node:
        integers = op.convert(op.constant(self._weights.stored(weight), shared_memory=True), "f32")
        scaled = op.multiply(integers, self._constant(scale_name(weight)))
        steps, whole, scale = self._quantise(rows)
        product = op.matmul(whole, scaled, transpose_a=False, transpose_b=True)
        if twice:
            # What rounding leaves is at most half a step, so twice the range makes the most of 8 bits.
            rest = _round(op.multiply(op.subtract(steps, whole), _float(2 * INT8_MAX)))
            correction = op.matmul(rest, scaled, transpose_a=False, transpose_b=True)
            product = op.add(product, op.multiply(correction, _float(1 / (2 * INT8_MAX))))
        return op.multiply(product, scale)

    def _quantise(self, rows: _Node) -> tuple[_Node, _Node, _Node]:
        """Give rows in steps of -127 to 127, the same in whole steps, and each row's scale; made once for rows."""
        key = rows.get_friendly_name()
        if key not in self._quantised:
            # Two reductions cost half of what one over absolute values does, which OpenVINO would write out first.
            most = op.reduce_max(rows, _ints([-1]), keep_dims=True)
            least = op.reduce_min(rows, _ints([-1]), keep_dims=True)
            # A row of zeros stays one: the divisor is the least that does not overflow.
            largest = op.maximum(op.maximum(most, op.negative(least)), _float(np.finfo(np.float32).tiny * INT8_MAX))
            steps = op.multiply(rows, op.divide(_float(INT8_MAX), largest))
            self._quantised[key] = steps, _round(steps), op.multiply(largest, _float(1 / INT8_MAX))
        return self._quantised[key]

    def _lookup(self, name: str, places: _Node) -> _Node:
        """Rows of a table; always kept as stored, for few of its rows are ever wanted."""
        return op.gather(self._widened(name, keep_narrow=True), places, _ints(0))

    def _constant(self, name: str) -> _Node:
        return self._widened(name, self._keep_narrow)

    def _widened(self, name: str, keep_narrow: bool) -> _Node:
        stored = self._stored(name)
        if self._weights.tensors[name].dtype == "F32":
            return stored
        widened = op.convert(stored, "f32")
        if keep_narrow:
            # OpenVINO's own mark for weights that stay as they are until they are packed or picked. Without it they are
            # widened at once: arctic-l from bf16 files 1,910 MB resident instead of 760, ready in 3 s instead of 2.2.
            widened.get_rt_info()["decompression_0"] = ""
        return widened

    def _stored(self, name: str) -> _Node:
        stored_type = _STORED_TYPES.get(self._weights.tensors[name].dtype)
        if stored_type is None:
            return op.constant(self._weights.float32(name), shared_memory=True)
        stored = np.require(self._weights.stored(name), requirements=["ALIGNED"])
        return op.constant(ov.Tensor(stored, stored.shape, stored_type))

    def _input(self, name: str, shape: list[int], kind: ov.Type) -> _Node:
        node = op.parameter(ov.PartialShape(shape), kind, name=name)
        node.output(0).set_names({name})
        self._inputs.append(node)
        return node


def _round(steps: _Node) -> _Node:
    """Round to whole steps of -127 to 127; OpenVINO takes this very form as the sign of an integer product."""
    limits = (_float(-INT8_MAX), _float(INT8_MAX))
    return op.fake_quantize(steps, *limits, *limits, levels=2 * INT8_MAX + 1)


def _float(value: float | np.floating[Any]) -> _Node:
    return op.constant(np.float32(value))


def _ints(values: int | list[int]) -> _Node:
    array: NDArray[np.int64] = np.array(values, np.int64)
    return op.constant(array)
