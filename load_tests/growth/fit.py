"""How fast a cost grows: exponents, knees and straight lines of measured points."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

# A bend by less than this is noise: two runs of one point differ by a tenth, a doubling of x between them.
_LEAST_BEND = 0.15
_POINTS_A_SIDE = 2


@dataclass(frozen=True, slots=True)
class Growth:
    """The power law of one series, and where it changes."""

    exponent: float
    """Log-log slope over all points: 1 is linear, 0 is constant."""
    before: float
    """Slope up to the knee; the exponent again where there is none."""
    after: float
    """Slope from the knee on."""
    knee: float | None
    """x of the point where the slope changes; None if one straight line tells it all."""


@dataclass(frozen=True, slots=True)
class Line:
    """y = fixed + slope * x."""

    fixed: float
    slope: float

    @property
    def knee(self) -> float:
        """The x whose variable part equals the fixed part: below it the fixed part rules."""
        return self.fixed / self.slope


def exponent(xs: Sequence[float], ys: Sequence[float]) -> float:
    """Returns the least-squares slope of log y over log x."""
    return float(np.polyfit(np.log(xs), np.log(ys), 1)[0])


def growth(xs: Sequence[float], ys: Sequence[float]) -> Growth:
    """Fits one line, and two that meet at a point, to the logarithms; the knee is where two lines fit best.

    Args:
        xs: Ascending, positive.
        ys: Positive.
    """
    whole = exponent(xs, ys)
    logs_x, logs_y = np.log(xs), np.log(ys)
    candidates = range(_POINTS_A_SIDE, len(xs) - _POINTS_A_SIDE)
    fits = [(_bent(logs_x, logs_y, place), place) for place in candidates]
    if not fits:
        return Growth(whole, whole, whole, None)
    (_, before, after), place = min(fits, key=lambda fit: fit[0][0])
    if abs(after - before) < _LEAST_BEND:
        return Growth(whole, whole, whole, None)
    return Growth(whole, before, after, float(xs[place]))


def line(xs: Sequence[float], ys: Sequence[float]) -> Line:
    """Fits y = fixed + slope * x with least relative error, so that small points count as much as large ones."""
    weights = 1 / np.asarray(ys, float)
    columns = np.stack([np.ones(len(xs)), np.asarray(xs, float)], axis=1) * weights[:, None]
    fixed, slope = np.linalg.lstsq(columns, np.ones(len(xs)), rcond=None)[0]
    return Line(float(fixed), float(slope))


def square(xs: Sequence[float], ys: Sequence[float]) -> tuple[float, float]:
    """Fits y = linear * x + quadratic * x^2 with least relative error and returns both."""
    x, weights = np.asarray(xs, float), 1 / np.asarray(ys, float)
    columns = np.stack([x, x * x], axis=1) * weights[:, None]
    linear, quadratic = np.linalg.lstsq(columns, np.ones(len(xs)), rcond=None)[0]
    return float(linear), float(quadratic)


def _bent(logs_x: np.ndarray, logs_y: np.ndarray, place: int) -> tuple[float, float, float]:
    """Fits two lines that meet at a point; returns the squared error and both slopes."""
    knee = logs_x[place]
    columns = np.stack([np.ones(len(logs_x)), np.minimum(logs_x - knee, 0), np.maximum(logs_x - knee, 0)], axis=1)
    found = np.linalg.lstsq(columns, logs_y, rcond=None)[0]
    error = float(((columns @ found - logs_y) ** 2).sum())
    return error, float(found[1]), float(found[2])
