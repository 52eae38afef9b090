"""How large everything is measured: the arctic shape on a GPU, or a tiny one on the CPU for a dry run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

VOCABULARY_START = 4
"""Ids below are <s>, <pad>, </s> and <unk>."""


@dataclass(frozen=True, slots=True)
class Scale:
    """One kind of run."""

    device: str
    folder: Path
    """Where the random model lies; made by the part `model`."""
    seconds: float
    """Length of the sustained measurement of the matrix products; others take a tenth each."""
    columns: int
    heads: int
    inner: int
    layers: int
    vocabulary: int
    max_tokens: int
    pass_tokens: int
    product_tokens: tuple[int, ...]
    """Rows of the matrix products that are measured."""
    lengths: tuple[int, ...]
    """Tokens of each text in a throughput measurement."""
    precisions: tuple[str, ...]

    @property
    def dry(self) -> bool:
        """True where nothing measured means anything."""
        return self.device == "cpu"

    @property
    def short_s(self) -> float:
        """Length of an ordinary measurement."""
        return self.seconds / 10

    @property
    def products(self) -> dict[str, tuple[int, int]]:
        """(N, K) of the four products of a layer."""
        columns, inner = self.columns, self.inner
        return {
            "qkv": (3 * columns, columns),
            "out": (columns, columns),
            "ffn1": (inner, columns),
            "ffn2": (columns, inner),
        }

    def flops(self, length: int) -> float:
        """Floating-point operations of one token in a text of `length` tokens, nothing left out."""
        linear = sum(2 * n * k for n, k in self.products.values())
        return float(self.layers * (linear + 4 * length * self.columns))


def make_scale(dry: bool, work: Path, seconds: float) -> Scale:
    """The real thing, or the dry run."""
    if dry:
        return Scale(
            "cpu", work / "tiny", min(seconds, 0.5), 64, 4, 128, 2, 1000, 1024, 1024,
            (128, 256), (16, 64, 128, 512, 1024), ("f32", "bf16", "fp16", "fp8"),
        )  # fmt: skip
    return Scale(
        "cuda", work / "arctic-l-random", seconds, 1024, 16, 4096, 24, 250_002, 8192, 8448,
        (4096, 4224, 8192, 8448, 16384, 16896), (16, 64, 128, 256, 512, 2048, 8192), ("f32", "bf16", "fp16", "fp8"),
    )  # fmt: skip
