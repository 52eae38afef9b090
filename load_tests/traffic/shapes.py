"""How the offered load changes over a run: each shape yields stretches of phases, and may look at how they went."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from traffic.arrivals import Phase

PhaseOutcome = Mapping[str, Any]
"""The report's row of a phase that ended: see document.py."""
Stretch = Sequence[Phase]
"""Phases that follow each other on the clock: what one leaves open burdens the next, as in one load that changes."""
Shape = Generator[Stretch, Sequence[PhaseOutcome], None]
"""Every answer to a stretch is waited for before the next begins, so that each stands for itself."""


@dataclass(frozen=True, slots=True)
class ShapeOptions:
    """The numbers that a shape is made of."""

    rate: float
    peak_rate: float
    rates: tuple[float, ...]
    seconds: float
    step_seconds: float
    max_rate: float = 10_000.0


def steady(options: ShapeOptions) -> Shape:
    """One rate."""
    yield [_level("steady", 0, options.seconds, options.rate)]


def soak(options: ShapeOptions) -> Shape:
    """One rate for long, cut in four, so that the last quarter can be held against the first."""
    quarters = _cut(options.seconds, 1 / 4, 2 / 4, 3 / 4)
    yield [_level(f"quarter {n + 1}", n, seconds, options.rate) for n, seconds in enumerate(quarters)]


def ramp(options: ShapeOptions) -> Shape:
    """From the rate evenly up to the peak; then half as long at the peak."""
    up, peak = _cut(options.seconds, 2 / 3)
    yield [Phase("ramp", 0, up, options.rate, options.peak_rate), _level("peak", 1, peak, options.peak_rate)]


def spike(options: ShapeOptions) -> Shape:
    """A third at the rate, a third at the peak, a third at the rate again: how long does the queue take to go?"""
    before, peak, after = _cut(options.seconds, 1 / 3, 2 / 3)
    yield [
        _level("before", 0, before, options.rate),
        _level("spike", 1, peak, options.peak_rate, judged=False),
        _level("after", 2, after, options.rate),
    ]


def sweep(options: ShapeOptions) -> Shape:
    """Some rates, one after another, past what the server can do."""
    for number, rate in enumerate(options.rates):
        yield [_step(number, options.step_seconds, rate)]


def standard(options: ShapeOptions) -> Shape:
    """A steady part that the limits hold for, then a sweep."""
    yield [_level("steady", 0, options.seconds, options.rate)]
    for number, rate in enumerate(options.rates, 1):
        yield [_step(number, options.step_seconds, rate)]


def _cut(seconds: float, *at: float) -> list[float]:
    """The lengths of the parts of a stretch that is cut at these shares of it: whole seconds, and at least one."""
    lengths, before_s = [], 0
    for share in at:
        end_s = max(before_s + 1, round(seconds * share))
        lengths.append(float(end_s - before_s))
        before_s = end_s
    return [*lengths, max(1.0, seconds - before_s)]


def _level(name: str, number: int, seconds: float, rate: float, *, judged: bool = True) -> Phase:
    return Phase(name, number, seconds, rate, rate, judged)


def _step(number: int, seconds: float, rate: float) -> Phase:
    return _level(f"{rate:g}/s", number, seconds, rate, judged=False)
