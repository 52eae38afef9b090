"""The tables of a run in markdown."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from measurement import Row

Cell = Callable[[Row], str]


def _number(key: str, digits: int = 0) -> Cell:
    return lambda row: f"{row[key]:,.{digits}f}"


def _text(key: str) -> Cell:
    return lambda row: str(row[key])


TITLES: Mapping[str, str] = {
    "cost": "What a call costs beside the transport alone",
    "workers": "One worker and two",
    "shares": "One worker and two, each held to 0.3 of a core",
    "bulk": "A question under bulk",
    "one-request": "One request alone, by the server's own account (medians)",
    "saturated": "CPU of the saturated worker by stage, ms a call",
}
_COLUMNS: Mapping[str, Mapping[str, Cell]] = {
    "cost": {
        "a call": _text("work"),
        "callers": _text("callers"),
        "echo, CPU ms": _number("echo_ms", 3),
        "gateway worker, CPU ms": _number("worker_ms", 3),
        "times": _number("times", 1),
        "tokenizer alone, ms": _number("tokenizer_ms", 3),
        "share": lambda row: f"{row['tokenizer_ms'] / row['worker_ms']:.0%}",
        "calls/s": _number("calls_per_s"),
    },
    "workers": {
        "workers": _text("workers"),
        "calls/s": _number("calls_per_s", 1),
        "CPU of the workers, cores": _number("worker_cores", 2),
        "CPU ms a call": _number("worker_ms", 1),
        "of all processes": _number("all_ms", 1),
    },
    "shares": {
        "a call": _text("work"),
        "workers": _text("workers"),
        "calls/s": _number("calls_per_s", 1),
        "CPU of the workers, cores": _number("worker_cores", 2),
        "times one": _number("times", 2),
    },
    "bulk": {
        "bulk: a call": _text("bulk"),
        "callers": _text("callers"),
        "its tokens/s": _number("tokens_per_s", 0),
        "question alone, p99 ms": _number("alone_p99_ms", 1),
        "under bulk, p99 ms": _number("bulk_p99_ms", 1),
        "a pack of 1,024 tokens takes, ms": _number("pack_ms", 1),
        "above it, in packs": _number("packs_above", 1),
    },
    "one-request": {
        "engine": _text("engine"),
        "a call": _text("work"),
        "wall ms": _number("wall_ms", 2),
        "tokenize": _number("tokenize_ms", 2),
        "queue": _number("queue_ms", 2),
        "inference": _number("inference_ms", 2),
        "rest": _number("rest_ms", 2),
        "bare echo, wall ms": _number("echo_ms", 2),
    },
}


def table(name: str, rows: Sequence[Row]) -> str:
    """Returns one table with its title.

    Args:
        name: Of `TITLES`.
        rows: As the part made them.
    """
    lines = _stage_lines(rows) if name == "saturated" else _lines(_COLUMNS[name], rows)
    return f"## {TITLES[name]}\n\n" + "\n".join(lines) + "\n"


def tables(results: Mapping[str, Sequence[Row]]) -> str:
    """Returns every table that there are rows of."""
    return "\n".join(table(name, results[name]) for name in TITLES if name in results)


def _lines(columns: Mapping[str, Cell], rows: Sequence[Row]) -> list[str]:
    cells = [[cell(row) for cell in columns.values()] for row in rows]
    return [_line(columns), _line("---" for _ in columns), *map(_line, cells)]


def _stage_lines(rows: Sequence[Row]) -> list[str]:
    """A line a stage and a column a work, for stages are what one reads along."""
    works = list(dict.fromkeys(row["work"] for row in rows))
    cells = {(row["stage"], row["work"]): f"{row['ms']:.3f} ({row['share']:.0%})" for row in rows}
    stages = list(dict.fromkeys(row["stage"] for row in rows))
    sums = [f"{sum(row['ms'] for row in rows if row['work'] == work):.3f}" for work in works]
    return [
        _line(["stage", *works]),
        _line("---" for _ in range(len(works) + 1)),
        *(_line([stage, *(cells[stage, work] for work in works)]) for stage in stages),
        _line(["all", *sums]),
    ]


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"
