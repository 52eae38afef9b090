"""What the forward pass is made of: the values between operators, and the protocol that both sets of them fulfil."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor

Gelu = Literal["erf", "tanh"]

FP8 = torch.float8_e4m3fn
FP8_MAX = 448.0
"""The largest number of float8 e4m3."""
LEAST_AMAX = 1e-12
"""Keeps the scale of a row of zeros from being zero."""


@dataclass(frozen=True, slots=True)
class Rows:
    """T rows of numbers, and their float8 form where the next product wants it: values = quantized * scales."""

    values: Tensor
    """(T, C) in the precision's number format."""
    quantized: Tensor | None = None
    """(T, C) float8 e4m3."""
    scales: Tensor | None = None
    """(T,) float32."""


@dataclass(frozen=True, slots=True)
class Linear:
    """One dense layer."""

    weight: Tensor
    """(N, K) in the precision's number format, or float8."""
    bias: Tensor
    """(N,) float32."""
    rounded_bias: Tensor
    """(N,) in the precision's number format, as matrix products add it."""
    scales: Tensor | None = None
    """(N,) float32 where the weight is float8."""

    def slice(self, first: int, last: int) -> Linear:
        """Take some of the outputs."""
        scales = None if self.scales is None else self.scales[first:last]
        return Linear(self.weight[first:last], self.bias[first:last], self.rounded_bias[first:last], scales)


@dataclass(frozen=True, slots=True)
class Norm:
    """One layer norm."""

    gain: Tensor
    """(C,) float32."""
    shift: Tensor
    """(C,) float32."""
    eps: float


class Operators(Protocol):
    """The operators of a forward pass. Statistics and sums are float32 in all of them; T is a multiple of 128."""

    def embed(
        self, token_ids: Tensor, positions: Tensor, words: Tensor, places: Tensor, norm: Norm, quantize: bool
    ) -> Rows:
        """Add the rows of both tables ((V, C) and (positions, C) float32) and normalize; in the format of `words`."""
        ...

    def multiply(self, rows: Rows, linear: Linear, bias: bool) -> Tensor:
        """Return rows @ weight.T, with the bias or without it, (T, N)."""
        ...

    def multiply_gelu_tanh(self, rows: Rows, linear: Linear) -> Tensor:
        """Return the tanh form of GELU of rows @ weight.T + bias, (T, N)."""
        ...

    def add_product(self, rows: Rows, linear: Linear, residual: Tensor) -> Tensor:
        """Return rows @ weight.T + residual, (T, N), without bias; `residual` may be overwritten."""
        ...

    def gelu(self, values: Tensor, bias: Tensor, form: Gelu, quantize: bool) -> Rows:
        """Add the float32 bias and apply GELU; `values` may be overwritten."""
        ...

    def attend(self, qkv: Tensor, starts: Tensor, ends: Tensor, heads: int) -> Tensor:
        """Attention of every row to its own sequence: (T, 3C), queries already scaled, to (T, C)."""
        ...

    def attend_picked(
        self, query: Tensor, key_value: Tensor, picks: Tensor, starts: Tensor, ends: Tensor, heads: int
    ) -> Tensor:
        """Attention of P picked rows: (P, C) queries and (T, 2C) keys and values to (P, C); zeros for pick -1."""
        ...

    def normalize(
        self, values: Tensor, bias: Tensor, residual: Tensor | None, norm: Norm, quantize: bool, out: torch.dtype
    ) -> Rows:
        """Layer norm of values + bias (+ residual), in the number format `out`."""
        ...

    def mean(self, values: Tensor, picks: Tensor, ends: Tensor) -> Tensor:
        """Mean of each text's rows, (P, C) float32; zeros for pick -1."""
        ...


def pick_rows(rows: Rows, picks: Tensor) -> Rows:
    """Gather P rows; pick -1 takes row 0, a real row whose copy nobody reads."""
    places = picks.clamp(min=0)
    if rows.quantized is None or rows.scales is None:
        return Rows(rows.values.index_select(0, places))
    # As bytes, because torch gathers no float8.
    quantized = rows.quantized.view(torch.uint8).index_select(0, places).view(FP8)
    return Rows(rows.values.index_select(0, places), quantized, rows.scales.index_select(0, places))
