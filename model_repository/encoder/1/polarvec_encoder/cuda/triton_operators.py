"""The operators on a GPU: torch's matrix products and our kernels."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from polarvec_encoder.cuda.kernels.activation import gelu
from polarvec_encoder.cuda.kernels.attention import attend
from polarvec_encoder.cuda.kernels.embedding import embed
from polarvec_encoder.cuda.kernels.normalization import normalize
from polarvec_encoder.cuda.kernels.picked_attention import attend_picked
from polarvec_encoder.cuda.kernels.pooling import mean
from polarvec_encoder.cuda.operators import Gelu, Linear, Norm, Rows
from polarvec_encoder.cuda.tuning import Tuning


class TritonOperators:
    """See `operators.Operators`."""

    def __init__(self, tuning: Tuning) -> None:
        self._tuning = tuning

    def embed(
        self, token_ids: Tensor, positions: Tensor, words: Tensor, places: Tensor, norm: Norm, quantize: bool
    ) -> Rows:
        """Add the rows of both tables and normalize."""
        return embed(token_ids, positions, words, places, norm, quantize, self._tuning.norm_warps)

    def multiply(self, rows: Rows, linear: Linear, bias: bool) -> Tensor:
        """Return rows @ weight.T; cuBLASLt adds the bias in its epilogue."""
        added = linear.rounded_bias if bias else None
        if linear.scales is None:
            return functional.linear(rows.values, linear.weight, added)
        if rows.quantized is None or rows.scales is None:
            raise ValueError("a float8 weight needs float8 rows")
        return torch._scaled_mm(
            rows.quantized,
            linear.weight.t(),
            scale_a=rows.scales[:, None],
            scale_b=linear.scales[None, :],
            bias=added,
            out_dtype=rows.values.dtype,
            use_fast_accum=True,
        )

    def multiply_gelu_tanh(self, rows: Rows, linear: Linear) -> Tensor:
        """Return the tanh form of GELU of the product, in cuBLASLt's epilogue: right on CUDA only."""
        return torch._addmm_activation(linear.rounded_bias, rows.values, linear.weight.t(), use_gelu=True)

    def add_product(self, rows: Rows, linear: Linear, residual: Tensor) -> Tensor:
        """Add the product to `residual` in place, because torch copies the addend of any other addmm first."""
        if linear.scales is None:
            return residual.addmm_(rows.values, linear.weight.t())
        return residual.add_(self.multiply(rows, linear, bias=False))

    def gelu(self, values: Tensor, bias: Tensor, form: Gelu, quantize: bool) -> Rows:
        """Add the bias and apply GELU."""
        return gelu(values, bias, form, quantize, self._tuning.gelu_warps)

    def attend(self, qkv: Tensor, starts: Tensor, ends: Tensor, heads: int) -> Tensor:
        """Attention of every row to its own sequence."""
        return attend(qkv, starts, ends, heads, self._tuning)

    def attend_picked(
        self, query: Tensor, key_value: Tensor, picks: Tensor, starts: Tensor, ends: Tensor, heads: int
    ) -> Tensor:
        """Attention of picked rows."""
        keys, warps = self._tuning.picked_keys, self._tuning.picked_warps
        return attend_picked(query, key_value, picks, starts, ends, heads, keys, warps)

    def normalize(
        self, values: Tensor, bias: Tensor, residual: Tensor | None, norm: Norm, quantize: bool, out: torch.dtype
    ) -> Rows:
        """Layer norm of values + bias (+ residual)."""
        return normalize(values, bias, residual, norm, quantize, out, self._tuning.norm_warps)

    def mean(self, values: Tensor, picks: Tensor, ends: Tensor) -> Tensor:
        """Mean of each text's rows."""
        return mean(values, picks, ends)
