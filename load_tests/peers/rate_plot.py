"""The plot of a comparison at the same arrival rates: goodput and p99 against the offered load."""

from __future__ import annotations

import math
from pathlib import Path

import matplotlib as mpl
from arrivals import WORKLOADS, Kind, Workload
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, StrMethodFormatter
from rate_contestant import RateStanding
from rate_report import RateReport

# Letters, in one font, named in the file and not drawn as curves; no date and no random ids: the same file for the
# same figures.
_STYLE = {"svg.fonttype": "none", "svg.hashsalt": "polarvec", "font.size": 9, "font.sans-serif": ["DejaVu Sans"]}
# The grid's lines say where the ticks are.
_STYLE |= {"axes.grid": True, "grid.alpha": 0.3, "xtick.bottom": False, "ytick.left": False}
_PANELS: tuple[tuple[str, Kind | None], ...] = (
    ("good calls/s", None),
    ("questions, p99 ms", "query"),
    ("document calls, p99 ms", "document"),
)


def plot(report: RateReport, file: Path) -> None:
    """Writes one SVG with a row of panels for each workload."""
    workloads = [workload for workload in WORKLOADS if report.load.rates[workload.name]]
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(11, 3.4 * len(workloads)), layout="constrained")
        rows = figure.subplots(len(workloads), len(_PANELS), squeeze=False)
        for workload, axes in zip(workloads, rows, strict=True):
            for panel, (name, kind) in zip(axes, _PANELS, strict=True):
                if kind == "document" and not workload.document_share:
                    panel.axis("off")
                    continue
                _panel(report, workload, kind, panel)
                panel.set(title=f"{workload.name}: {name}", xlabel="calls/s offered")
        handles, labels = rows[0][0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=5, frameon=False)
        file.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None})


def _panel(report: RateReport, workload: Workload, kind: Kind | None, panel: Axes) -> None:
    """One line a row; dashed the offered load, or the objective."""
    rates = report.load.rates[workload.name]
    for number, standing in enumerate(report.standings):
        points = [] if standing.problem else _points(report, standing, workload, kind)
        if points:
            style = "-" if standing.row.name.startswith(("polarvec", "tritonclient")) else ":"
            panel.plot(
                *zip(*points, strict=True), f"o{style}", markersize=4, color=f"C{number}", label=standing.row.name
            )
    panel.set(xscale="log", yscale="log")
    panel.set_xticks(rates, [f"{rate:g}" for rate in rates])
    panel.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    panel.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    panel.minorticks_off()
    if kind is None:
        panel.plot(rates, rates, color="0.7", linestyle="--")
    else:
        panel.axhline(report.slo_ms[kind], color="0.7", linestyle="--")


def _points(
    report: RateReport, standing: RateStanding, workload: Workload, kind: Kind | None
) -> list[tuple[float, float]]:
    """(rate, value), without rates at which nothing was good or p99 had no answer."""
    points = []
    for rate in report.load.rates[workload.name]:
        if stretch := standing.stretches.get((workload.name, rate)):
            value = stretch.goodput(report.slo_ms) if kind is None else stretch.percentile_ms(99, kind)
            if value and value < math.inf:
                points.append((rate, value))
    return points
