"""How far and how long each part goes."""

from __future__ import annotations

from dataclasses import dataclass

PARTS = ("text-count", "text-length", "callers", "workers", "models")


@dataclass(frozen=True, slots=True)
class Plan:
    """The ranges of one run."""

    model: str
    """A small model whose engine is run for real."""
    long_model: str
    """A model that reads long texts."""
    counts: tuple[int, ...]
    list_counts: tuple[int, ...]
    engine_counts: tuple[int, ...]
    lengths: tuple[int, ...]
    engine_lengths: tuple[int, ...]
    gpu_lengths: tuple[int, ...]
    callers: tuple[int, ...]
    workers: tuple[int, ...]
    models: tuple[int, ...]
    seconds: float
    """Of one point; one call at least is made, however long it takes."""


def make_plan(model: str, long_model: str, *, quick: bool, most: int, seconds: float) -> Plan:
    """The whole range, or every second or third point of it.

    Args:
        model: See `Plan`.
        long_model: See `Plan`.
        quick: For a look in two minutes.
        most: Points beyond are left out; 0 means none.
        seconds: Of one point.
    """
    step = 3 if quick else 1
    most = most or 1 << 30

    def within(points: tuple[int, ...], every: int = step) -> tuple[int, ...]:
        # From the end, because the largest points are the ones that tell.
        kept = [point for point in points if point <= most]
        return tuple(kept[::-1][::every][::-1])

    counts = (1, 3, 10, 30, 100, 300, 1_000, 3_000, 10_000, 30_000, 100_000)
    lengths = (16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192)
    return Plan(
        model=model,
        long_model=long_model,
        counts=within(counts),
        list_counts=within(counts[::2]),
        engine_counts=within(counts[:8]),
        lengths=within(lengths),
        engine_lengths=within(lengths),
        gpu_lengths=within(lengths[::2], 1),
        callers=within((1, 2, 4, 8, 16, 32, 64, 128, 256, 512)),
        workers=within((1, 2, 3, 4), 1),
        models=within((1, 2, 3), 1),
        seconds=seconds,
    )
