"""The plots of a report, from its JSON."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter
from traffic.samples import UNANSWERED, percentile

from load_report.plot import COLOURS, FAINT, plot

_THOUSANDS = FuncFormatter(lambda value, _: f"{value:,.0f}" if abs(value) >= 1 or value == 0 else f"{value:g}")
# More points than that cannot be told apart in a plot of this width.
_MAX_POINTS = 300
_MIB = 2**20
_PARTS = ("gateway", "tritonserver", "engine", "supervisor")


def charts(report: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Title, one sentence and SVG of each plot that the report has numbers for."""
    found = [
        (
            f"Latency of {kind} over time",
            f"Milliseconds from the due time to the answer; log scale. An answer within {slo:,.0f} ms is good.",
            plot(f"latency {kind}", lambda axes, kind=kind, slo=slo: _latency(axes, report, kind, slo)),
        )
        for kind, slo in report["scenario"]["slo_ms"].items()
        if any(row["kind"] == kind for row in report["seconds"])
    ]
    found.append(
        (
            "Calls over time",
            "Calls a second: that were due, that ended rightly in that second, and that failed.",
            plot("calls", lambda axes: _calls(axes, report)),
        )
    )
    if len({phase["rate"] for phase in report["phases"]}) > 1:
        found += [
            (
                "Throughput and goodput against offered load",
                "Throughput: right answers while the phase lasted. Goodput: calls of the phase answered rightly and in "
                "time, also after its end. Dashed: everything that was offered.",
                plot("throughput", lambda axes: _against_load(axes, report)),
            ),
            (
                "Latency against offered load",
                "p50 (thin) and p99 (thick) of each kind in each phase; log scale.",
                plot("latency against load", lambda axes: _latency_against_load(axes, report)),
            ),
        ]
    for title, sentence, name, draw in _SERVER_CHARTS:
        if svg := _if_measured(name, draw, report):
            found.append((title, sentence, svg))
    return found


def _latency(axes: Axes, report: Mapping[str, Any], kind: str, slo_ms: float) -> None:
    rows = [row for row in report["seconds"] if row["kind"] == kind]
    step = _step(report)
    windows: dict[int, Counter[int]] = {}
    unanswered: Counter[int] = Counter()
    for row in rows:
        t = row["t"] // step * step
        windows.setdefault(t, Counter()).update(dict(map(tuple, row["latencies"])))
        unanswered[t] += sum(row.get(name, 0) for name in UNANSWERED)
    for (name, share), colour in zip((("p50", 0.5), ("p95", 0.95), ("p99", 0.99)), COLOURS, strict=False):
        points = [(t + step / 2, percentile(windows[t], share, unanswered[t])) for t in sorted(windows)]
        axes.plot(*zip(*points, strict=True), color=colour, label=name, marker="o", markersize=2)
    axes.axhline(slo_ms, color="#9ca3af", linestyle="--", linewidth=1, label="good until here")
    _log_axis(axes)
    axes.set_ylabel("ms")
    _time_axis(axes, report)


def _calls(axes: Axes, report: Mapping[str, Any]) -> None:
    step = _step(report)
    sums: dict[int, Counter[str]] = {}
    for row in report["seconds"]:
        window = sums.setdefault(row["t"] // step * step, Counter())
        window.update({name: row.get(name, 0) for name in ("offered", "finished", "failed", "wrong", "dropped")})
    times = sorted(sums)
    failed = [(sums[t]["failed"] + sums[t]["wrong"] + sums[t]["dropped"]) / step for t in times]
    middle = [t + step / 2 for t in times]
    axes.plot(middle, [sums[t]["offered"] / step for t in times], color="#6b7280", linestyle="--", label="offered")
    axes.plot(middle, [sums[t]["finished"] / step for t in times], color=COLOURS[0], label="answered")
    if any(failed):
        axes.plot(middle, failed, color=COLOURS[4], label="failed")
    axes.set_ylabel("calls/s")
    axes.set_ylim(bottom=0)
    _time_axis(axes, report)


def _against_load(axes: Axes, report: Mapping[str, Any]) -> None:
    phases = _by_load(report)
    offered = [phase["total"]["offered_rate"] for phase in phases]
    axes.plot([0, max(offered)], [0, max(offered)], color="#9ca3af", linestyle="--", linewidth=1, label="offered")
    for name, colour in (("throughput", COLOURS[0]), ("goodput", COLOURS[2])):
        axes.plot(offered, [phase["total"][name] for phase in phases], "o-", color=colour, markersize=4, label=name)
    axes.set_xlabel("offered calls/s")
    axes.set_ylabel("calls/s")
    axes.set_xlim(left=0)
    axes.set_ylim(bottom=0)


def _latency_against_load(axes: Axes, report: Mapping[str, Any]) -> None:
    phases = _by_load(report)
    for kind, colour in zip(report["scenario"]["slo_ms"], COLOURS, strict=False):
        rows = [(phase["total"]["offered_rate"], phase["kinds"][kind]) for phase in phases if kind in phase["kinds"]]
        for name, width in (("p50_ms", 1.0), ("p99_ms", 2.2)):
            points = [(x, row[name]) for x, row in rows if row[name] is not None]
            if points:
                label = f"{kind} {name[:3]}"
                axes.plot(*zip(*points, strict=True), "o-", color=colour, linewidth=width, markersize=3, label=label)
    _log_axis(axes)
    axes.set_xlim(left=0)
    axes.set_xlabel("offered calls/s")
    axes.set_ylabel("ms")


def _queue(axes: Axes, report: Mapping[str, Any]) -> bool:
    rows = [row for row in report["server"] if "polarvec_held_tokens" in row]
    held = [max(0.0, row["polarvec_held_tokens"] - row.get("polarvec_in_flight_tokens", 0)) for row in rows]
    if not rows:
        return False
    times = [row["t"] for row in rows]
    axes.fill_between(times, held, step="mid", color=COLOURS[0], alpha=0.25, linewidth=0)
    axes.plot(times, held, color=COLOURS[0], label="waiting in the gateway")
    in_flight = [row.get("polarvec_in_flight_tokens", 0) for row in rows]
    axes.plot(times, in_flight, color=COLOURS[1], label="on their way in Triton")
    axes.set_ylabel("tokens")
    axes.set_ylim(bottom=0)
    axes.yaxis.set_major_formatter(_THOUSANDS)
    _time_axis(axes, report)
    return True


def _batches(axes: Axes, report: Mapping[str, Any]) -> bool:
    names = {"polarvec_encoded_texts_total": "texts", "polarvec_encoded_packs_total": "packs"}
    rows = _windows([row for row in report["server"] if "nv_inference_exec_count" in row])
    for (name, label), colour in zip(names.items(), COLOURS, strict=False):
        points = []
        for before, after in itertools.pairwise(rows):
            batches = after["nv_inference_exec_count"] - before["nv_inference_exec_count"]
            if batches > 0 and after.get(name, 0) > before.get(name, 0):
                mean = (after[name] - before.get(name, 0)) / batches
                points.append(((before["t"] + after["t"]) / 2, mean))
        if points:
            axes.plot(*zip(*points, strict=True), color=colour, marker="o", markersize=2, label=f"{label} a batch")
    axes.set_ylabel("mean over a second")
    axes.set_ylim(bottom=0)
    _time_axis(axes, report)
    return bool(axes.lines)


def _cpu(axes: Axes, report: Mapping[str, Any]) -> bool:
    rows = _windows([row for row in report["server"] if row.get("cpu_s")])
    pairs = list(itertools.pairwise(rows))
    times = [(before["t"] + after["t"]) / 2 for before, after in pairs]
    for part, colour in zip(_PARTS, COLOURS, strict=False):
        cores = [
            (after["cpu_s"].get(part, 0) - before["cpu_s"].get(part, 0)) / (after["t"] - before["t"])
            for before, after in pairs
        ]
        if any(cores):
            axes.plot(times, cores, color=colour, label=part)
    machine = [
        (after["machine_cpu_s"] - before["machine_cpu_s"]) / (after["t"] - before["t"]) for before, after in pairs
    ]
    axes.plot(times, machine, color="#9ca3af", linestyle="--", linewidth=1, label="whole machine")
    axes.set_ylabel("cores")
    axes.set_ylim(bottom=0)
    _time_axis(axes, report)
    return bool(pairs)


def _memory(axes: Axes, report: Mapping[str, Any]) -> bool:
    rows = _windows([row for row in report["server"] if row.get("rss_bytes")])
    for part, colour in zip(_PARTS, COLOURS, strict=False):
        axes.plot(
            [row["t"] for row in rows], [row["rss_bytes"].get(part, 0) / _MIB for row in rows], color=colour, label=part
        )
    axes.set_ylabel("MiB resident")
    axes.set_ylim(bottom=0)
    axes.yaxis.set_major_formatter(_THOUSANDS)
    _time_axis(axes, report)
    return bool(rows)


_Draw = Callable[[Axes, Mapping[str, Any]], bool]
_SERVER_CHARTS: tuple[tuple[str, str, str, _Draw], ...] = (
    ("Queue depth", "Tokens of calls that are in, twice a second.", "queue", _queue),
    (
        "Batch size",
        "Texts and packs in one execution that Triton starts, canaries among them; the encoder joins what waits.",
        "batches",
        _batches,
    ),
    ("CPU", "Cores busy, by the part of the server; the load and other programs are in the dashed line.", "cpu", _cpu),
    ("Memory", "Resident memory by the part of the server; pages that processes share count in each.", "rss", _memory),
)


def _if_measured(name: str, draw: _Draw, report: Mapping[str, Any]) -> str | None:
    measured = []
    svg = plot(name, lambda axes: measured.append(draw(axes, report)))
    return svg if measured[0] else None


def _by_load(report: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The steps of a sweep where there are any, else all phases; lowest load first."""
    steps = [phase for phase in report["phases"] if not phase["judged"]]
    phases = steps if len(steps) > 1 else report["phases"]
    return sorted(phases, key=lambda phase: phase["total"]["offered_rate"])


def _log_axis(axes: Axes) -> None:
    """Labels at 1, 2 and 5 of each decade."""
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.yaxis.set_major_formatter(_THOUSANDS)
    axes.yaxis.set_minor_formatter(NullFormatter())


def _time_axis(axes: Axes, report: Mapping[str, Any]) -> None:
    """Seconds of the run, every other phase on a grey ground."""
    end_s = max((phase["start_s"] + phase["seconds"] for phase in report["phases"]), default=1)
    for number, phase in enumerate(report["phases"]):
        if number % 2:
            axes.axvspan(phase["start_s"], phase["start_s"] + phase["seconds"], color=FAINT, alpha=0.5, zorder=0)
        if len(report["phases"]) > 1:
            middle = phase["start_s"] + phase["seconds"] / 2
            place = axes.get_xaxis_transform()
            axes.text(
                middle, 0.995, phase["name"], transform=place, ha="center", va="bottom", fontsize=7.5, color="#6b7280"
            )
    # To the last answer: how the queue goes after the last call is worth seeing.
    end_s = max(end_s, max((row["t"] + 1 for row in report["seconds"]), default=0))
    axes.set_xlim(min((phase["start_s"] for phase in report["phases"]), default=0), end_s)
    axes.set_xlabel("seconds")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def _step(report: Mapping[str, Any]) -> int:
    return max(1, len({row["t"] for row in report["seconds"]}) // _MAX_POINTS)


def _windows(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows about a second apart, or further in long runs: CPU times have a resolution of 10 ms."""
    return rows[:: max(2, len(rows) // _MAX_POINTS)]
