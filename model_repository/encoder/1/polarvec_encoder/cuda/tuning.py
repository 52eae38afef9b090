"""The choices that only a measurement on the GPU can settle; `load_tests/gpu` measures them and prints these fields."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Tuning:
    """Block shapes and budgets; the defaults are reasoned, not measured (docs/decisions/0008-cuda-engine.md)."""

    attention_rows: int = 128
    """Query rows of one attention program: 64 or 128, since every pass is a multiple of 128."""
    attention_keys: int = 64
    """Keys of one step; short texts waste less of a small one."""
    attention_warps: int = 4
    attention_stages: int = 3
    """Steps whose keys and values are on their way at once."""
    picked_keys: int = 128
    """Keys of one step of the last layer's attention for single rows."""
    picked_warps: int = 4
    norm_warps: int = 4
    gelu_warps: int = 8
    residual_in_product: bool = False
    """True adds the residual inside the matrix product (beta = 1); False inside the layer norm, which rounds less."""
    pass_tokens: int = 8448
    """Tokens of the largest pass and CUDA graph: 66 tiles of 128, which divide over 132 multiprocessors evenly."""
    spin: bool = True
    """Wait for a pass busily: tens of microseconds faster than sleeping, and one core of the host taken meanwhile."""
