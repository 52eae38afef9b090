"""One SVG for each part: both axes in powers, each series with the straight line that it should follow."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure
from row import Row
from tables import GROWING, by_series, growing

_X = {
    "text-count": "texts in one call",
    "text-length": "tokens a text",
    "callers": "callers",
    "workers": "gateway workers",
    "models": "models",
}
_COLORS = ("#1f5fa8", "#c2571a", "#2f7d4f", "#7a4fa3", "#8a6d1d")
# Named in the file and not drawn as curves: a third of the size, and readable in a diff; no date, no random ids.
_STYLE = {"svg.fonttype": "none", "svg.hashsalt": "polarvec", "font.size": 10, "axes.grid": True, "grid.alpha": 0.3}


def plot(part: str, rows: Sequence[Row], place: Path) -> None:
    """Draws one part.

    Args:
        part: Its name.
        rows: All its series.
        place: The SVG to write.
    """
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(7.2, 4.4), layout="constrained")
        axes = figure.subplots()
        drawn = {name: points for name, points in by_series(rows).items() if len(points) > 1}
        for (name, points), color in zip(drawn.items(), _COLORS, strict=False):
            xs, ys = [row["x"] for row in points], [growing(part, row) for row in points]
            axes.plot(xs, ys, "o-", color=color, label=name, markersize=4)
            # Straight through the end where the cost per unit counts, through the start where gain is hoped for.
            x, y = (xs[0], ys[0]) if part in ("workers", "models") else (xs[-1], ys[-1])
            axes.plot(xs, [y * each / x for each in xs], "--", color=color, linewidth=0.8, alpha=0.7)
        axes.plot([], [], "--", color="grey", linewidth=0.8, label="linear")
        axes.set(xlabel=_X[part], ylabel=GROWING[part][1], xscale="log", yscale="log")
        if part in ("workers", "models"):
            axes.set(xscale="linear", yscale="linear", xticks=sorted({row["x"] for row in rows}))
            axes.set_ylim(bottom=0)
        axes.legend(fontsize=8)
        figure.savefig(place, format="svg", metadata={"Date": None, "Creator": None})
