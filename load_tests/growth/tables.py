"""The tables of a run in markdown, and the growth of each series in words."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from fit import growth, line, square
from row import Row

Cell = Callable[[Row], str]


def _number(key: str, digits: int = 0, scale: float = 1.0) -> Cell:
    return lambda row: f"{row[key] * scale:,.{digits}f}" if key in row else ""


def _measured(key: str, digits: int = 0) -> Cell:
    return lambda row: f"{row['measured'][key]:,.{digits}f}"


def _tokenizer_share(row: Row) -> str:
    return f"{row['tokenizer_ms_a_text'] / row['cpu_ms_a_text']:.0%}" if "tokenizer_ms_a_text" in row else ""


# Of each part: what x is, and the columns.
_COLUMNS: Mapping[str, tuple[str, Mapping[str, Cell]]] = {
    "text-count": (
        "texts",
        {
            "seconds": _number("seconds_a_call", 4),
            "texts/s": _number("texts_per_s"),
            "server CPU ms a text": _number("cpu_ms_a_text", 3),
            "client CPU ms a text": _number("client_cpu_ms_a_text", 3),
            "texts a pack": _number("texts_a_pack", 1),
            "server peak MB": _number("rss_mb"),
            "client peak MB": lambda row: f"{row['measured']['client_peak_bytes'] / 1e6:,.0f}",
        },
    ),
    "text-length": (
        "tokens a text",
        {
            "tokens/s": _number("tokens_per_s"),
            "server CPU ms a text": _number("cpu_ms_a_text", 3),
            "gateway": _number("worker_cpu_ms_a_text", 3),
            "tritonserver": _number("triton_cpu_ms_a_text", 3),
            "encoder process": _number("encoder_cpu_ms_a_text", 3),
            "CPU µs a token": lambda row: f"{row['cpu_ms_a_text'] * 1e3 / row['x']:,.2f}",
            "tokenizer's share": _tokenizer_share,
        },
    ),
    "callers": (
        "callers",
        {
            "calls/s": _number("calls_per_s"),
            "p50 ms": _measured("p50_ms", 1),
            "p99 ms": _measured("p99_ms", 1),
            "mean ms in the service": lambda row: f"{sum(row['measured']['stage_ms'].values()):,.1f}",
            "server CPU ms a call": _number("cpu_ms_a_call", 2),
            "client CPU ms a call": _number("client_cpu_ms_a_text", 2),
            "packs a batch": _number("packs_a_batch", 1),
            "held tokens": _measured("held_tokens"),
            "event loop late ms": lambda row: f"{row['measured']['loop_lag_s'] * 1e3:,.0f}",
            "refused": lambda row: f"{row['refused_share']:.0%}",
        },
    ),
    "workers": (
        "workers",
        {
            "calls/s": _number("calls_per_s"),
            "p50 ms": _measured("p50_ms", 1),
            "p99 ms": _measured("p99_ms", 1),
            "server CPU ms a call": _number("cpu_ms_a_call", 2),
            "of it gateway": lambda row: (
                f"{row['worker_cpu_ms_a_text'] * row['cpu_ms_a_call'] / row['cpu_ms_a_text']:.2f}"
            ),
            "busiest worker's share": lambda row: f"{row['busiest_share']:.0%}",
            "cores in use": lambda row: f"{row['calls_per_s'] * row['cpu_ms_a_call'] / 1e3:.2f}",
            "workers' peak MB": _number("worker_rss_mb"),
        },
    ),
    "models": (
        "models",
        {
            "tokens/s": _number("tokens_per_s"),
            "p50 ms": _measured("p50_ms", 1),
            "p99 ms": _measured("p99_ms", 1),
            "server peak MB": _number("rss_mb"),
            "of it gateway": _number("worker_rss_mb"),
        },
    ),
}
# What is held against a straight line: the value, and its name.
GROWING: Mapping[str, tuple[str, str]] = {
    "text-count": ("seconds_a_call", "seconds"),
    "text-length": ("cpu_ms_a_text", "CPU ms a text"),
    "callers": ("p50_ms", "p50 ms"),
    "workers": ("calls_per_s", "calls/s"),
    "models": ("rss_mb", "server peak MB"),
}


def by_series(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """Rows of each series, in their order."""
    series: dict[str, list[Row]] = {}
    for row in rows:
        series.setdefault(row["series"], []).append(row)
    return series


def growing(part: str, row: Row) -> float:
    """The value of a row that is held against a straight line."""
    key = GROWING[part][0]
    return float(row[key] if key in row else row["measured"][key])


def table(part: str, rows: Sequence[Row]) -> str:
    """The tables of one part, one for each series, each with its growth."""
    name, columns = _COLUMNS[part]
    lines = []
    for series, points in by_series(rows).items():
        # A column that says nothing of this series is left out.
        used = {title: cell for title, cell in columns.items() if any(cell(row) for row in points)}
        lines += [f"{series}:", "", f"| {name} | {' | '.join(used)} |", "|---:" * (len(used) + 1) + "|"]
        lines += [f"| {row['x']:,} | {' | '.join(cell(row) for cell in used.values())} |" for row in points]
        lines += ["", _in_words(part, points), ""]
    return "\n".join(lines)


def _in_words(part: str, points: Sequence[Row]) -> str:
    xs, ys = [row["x"] for row in points], [growing(part, row) for row in points]
    if len(xs) < 3:
        return ""
    found = growth(xs, ys)
    said = [f"{GROWING[part][1]} grow with the power {found.exponent:.2f}"]
    if found.knee is not None:
        said.append(f"{found.before:.2f} up to {found.knee:,.0f} and {found.after:.2f} beyond")
    if part == "text-count":
        straight = line(xs, ys)
        said.append(f"{straight.fixed * 1e3:.1f} ms and {straight.slope * 1e6:.1f} µs a text")
    elif part == "text-length" and "engine" in points[0]["series"]:
        linear, quadratic = square(xs, ys)
        said.append(f"{linear * 1e3:.1f} µs a token and {quadratic * 1e6:.1f} ns a token and token of the text")
        if quadratic > 0:
            said.append(f"both alike at {linear / quadratic:,.0f} tokens")
    elif part == "text-length":
        straight = line(xs, ys)
        said.append(f"{straight.fixed * 1e3:.1f} µs a text and {straight.slope * 1e3:.3f} µs a token")
    return "; ".join(said) + "."
