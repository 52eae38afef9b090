"""The progress of a bulk job on stderr: a bar for a person, a line now and then for a log."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from polarvec.bulk import BulkProgress, BulkSummary

_LINE_INTERVAL_S = 10.0


@contextmanager
def display(*, quiet: bool) -> Iterator[Callable[[BulkProgress], object] | None]:
    """Gives the function that a job reports to.

    Args:
        quiet: Shows nothing.
    """
    if quiet:
        yield None
    elif sys.stderr.isatty():
        with _bar() as bar:
            task = bar.add_task("", total=None, said="")
            yield lambda progress: bar.update(
                task,
                total=None if progress.fraction is None else 1.0,
                completed=progress.fraction or 0.0,
                said=_said(progress),
            )
    else:
        yield _Lines()


def summary_line(summary: BulkSummary) -> str:
    """What was done, in one sentence."""
    good = summary.row_count - summary.error_count
    bad = f"; {summary.error_count:,} bad rows in {summary.errors}" if summary.errors is not None else ""
    return (
        f"{good:,} vectors in {summary.output}, {summary.token_count:,} tokens{bad}; "
        f"model {summary.model}, fingerprint {summary.fingerprint}"
    )


def summary_json(summary: BulkSummary) -> str:
    """What was done, for a script."""
    return json.dumps(asdict(summary), ensure_ascii=False, default=str)


class _Lines:
    """A line every ten seconds, and none for a job that is done before."""

    def __init__(self) -> None:
        self._last_s = time.monotonic()

    def __call__(self, progress: BulkProgress) -> None:
        now_s = time.monotonic()
        if now_s - self._last_s >= _LINE_INTERVAL_S:
            self._last_s = now_s
            percent = "" if progress.fraction is None else f" ({progress.fraction:.1%})"
            sys.stderr.write(f"polarvec: {_said(progress).replace(' rows', f' rows{percent}', 1)}\n")
            sys.stderr.flush()


def _bar() -> Progress:
    return Progress(
        BarColumn(),
        TextColumn("{task.percentage:>5.1f}%"),
        TextColumn("{task.fields[said]}"),
        console=Console(stderr=True),
        transient=True,
    )


def _said(progress: BulkProgress) -> str:
    parts = [f"{progress.row_count:,} rows", f"{progress.rows_per_s:,.0f} rows/s"]
    if progress.error_count:
        parts.append(f"{progress.error_count:,} bad")
    if progress.seconds_left is not None:
        parts.append(f"{_duration(progress.seconds_left)} left")
    return ", ".join(parts)


def _duration(seconds: float) -> str:
    """Two units: 1 h 05 min, 4 min 10 s, 9 s."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {rest:02} s" if minutes else f"{rest} s"
