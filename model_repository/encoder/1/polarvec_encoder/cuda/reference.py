"""Every operator in plain torch: what the kernels are held against, and what runs where there is no GPU."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from polarvec_encoder.cuda.operators import FP8, FP8_MAX, LEAST_AMAX, Gelu, Linear, Norm, Rows


class ReferenceOperators:
    """See `operators.Operators`; computes in float32 and rounds where the kernels round."""

    def embed(
        self, token_ids: Tensor, positions: Tensor, words: Tensor, places: Tensor, norm: Norm, quantize: bool
    ) -> Rows:
        """Add the rows of both tables and normalize."""
        summed = words.index_select(0, token_ids).float() + places.index_select(0, positions)
        return self._finish(_layer_norm(summed, norm), words.dtype, quantize)

    def multiply(self, rows: Rows, linear: Linear, bias: bool) -> Tensor:
        """Return rows @ weight.T, with the bias or without it."""
        if linear.scales is None:
            return functional.linear(rows.values, linear.weight, linear.rounded_bias if bias else None)
        product = _dequantize(rows) @ (linear.weight.float() * linear.scales[:, None]).t()
        return (product + linear.rounded_bias.float() if bias else product).to(rows.values.dtype)

    def multiply_gelu_tanh(self, rows: Rows, linear: Linear) -> Tensor:
        """Apply the tanh form explicitly: `torch._addmm_activation` means it on CUDA and computes erf on the CPU."""
        product = functional.linear(rows.values.float(), linear.weight.float(), linear.rounded_bias.float())
        return functional.gelu(product, approximate="tanh").to(rows.values.dtype)

    def add_product(self, rows: Rows, linear: Linear, residual: Tensor) -> Tensor:
        """Return rows @ weight.T + residual."""
        return (self.multiply(rows, linear, bias=False).float() + residual.float()).to(residual.dtype)

    def gelu(self, values: Tensor, bias: Tensor, form: Gelu, quantize: bool) -> Rows:
        """Add the bias and apply GELU."""
        approximate = "tanh" if form == "tanh" else "none"
        return self._finish(functional.gelu(values.float() + bias, approximate=approximate), values.dtype, quantize)

    def attend(self, qkv: Tensor, starts: Tensor, ends: Tensor, heads: int) -> Tensor:
        """Attention of every row to its own sequence, one sequence after another."""
        query, key, value = (_heads(part, heads) for part in qkv.chunk(3, dim=1))
        pieces = []
        for start in torch.unique_consecutive(starts).tolist():
            rows = slice(start, int(ends[start]))
            pieces.append(_attention(query[:, rows], key[:, rows], value[:, rows]))
        return torch.cat(pieces).to(qkv.dtype)

    def attend_picked(
        self, query: Tensor, key_value: Tensor, picks: Tensor, starts: Tensor, ends: Tensor, heads: int
    ) -> Tensor:
        """Attention of picked rows, one after another."""
        key, value = (_heads(part, heads) for part in key_value.chunk(2, dim=1))
        queries = _heads(query, heads)
        attended = torch.zeros(query.shape, dtype=torch.float32, device=query.device)
        for place, row in enumerate(picks.tolist()):
            if row >= 0:
                rows = slice(int(starts[row]), int(ends[row]))
                attended[place] = _attention(queries[:, place : place + 1], key[:, rows], value[:, rows])[0]
        return attended.to(query.dtype)

    def normalize(
        self, values: Tensor, bias: Tensor, residual: Tensor | None, norm: Norm, quantize: bool, out: torch.dtype
    ) -> Rows:
        """Layer norm of values + bias (+ residual)."""
        summed = values.float() + bias
        if residual is not None:
            summed = summed + residual.float()
        return self._finish(_layer_norm(summed, norm), out, quantize)

    def mean(self, values: Tensor, picks: Tensor, ends: Tensor) -> Tensor:
        """Mean of each text's rows."""
        means = torch.zeros((picks.numel(), values.shape[1]), dtype=torch.float32, device=values.device)
        for place, row in enumerate(picks.tolist()):
            if row >= 0:
                means[place] = values[row : int(ends[row])].float().mean(dim=0)
        return means

    def _finish(self, exact: Tensor, dtype: torch.dtype, quantize: bool) -> Rows:
        if not quantize:
            return Rows(exact.to(dtype))
        return Rows(exact.to(dtype), *quantize_rows(exact))


def quantize_rows(exact: Tensor) -> tuple[Tensor, Tensor]:
    """Scale each row (of activations or of a weight) so that its largest number is float8's largest.

    Returns:
        (T, C) float8 e4m3 and (T,) float32 with exact = float8 * float32 up to rounding.
    """
    scales = exact.abs().amax(dim=1).clamp(min=LEAST_AMAX) / FP8_MAX
    return (exact / scales[:, None]).clamp(-FP8_MAX, FP8_MAX).to(FP8), scales


def _dequantize(rows: Rows) -> Tensor:
    if rows.quantized is None or rows.scales is None:
        return rows.values.float()
    return rows.quantized.float() * rows.scales[:, None]


def _layer_norm(exact: Tensor, norm: Norm) -> Tensor:
    return functional.layer_norm(exact, exact.shape[1:], norm.gain, norm.shift, norm.eps)


def _heads(rows: Tensor, heads: int) -> Tensor:
    """(T, C) in any format to (heads, T, C / heads) float32."""
    return rows.float().view(rows.shape[0], heads, -1).transpose(0, 1)


def _attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """(heads, Q, d) and (heads, K, d) to (Q, heads * d); torch's own, which needs no square of memory."""
    attended = functional.scaled_dot_product_attention(query[None], key[None], value[None], scale=1.0)[0]
    return attended.transpose(0, 1).reshape(query.shape[1], -1)
