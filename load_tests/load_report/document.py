"""The JSON behind a report; its schema is what `FIELDS` and phase_rows.py say."""

from __future__ import annotations

import dataclasses
import datetime
import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from traffic.samples import BUCKET_RATIO, Samples

from load_report.machine import git_commit, machine, server_settings

if TYPE_CHECKING:
    from traffic.conductor import Conductor

SCHEMA_VERSION = 1
FIELDS = (
    "schema_version",
    "created_at",
    "git_commit",
    "machine",
    "model",
    "settings",
    "scenario",
    "texts",
    "phases",
    "seconds",
    "latency_bucket_ratio",
    "server",
    "server_counters",
    "search",
    "missing",
    "problems",
)


class UnreadableReport(Exception):
    """A file that is no report of this schema."""


def document(conductor: Conductor, problems: Iterable[str], own_settings: str) -> dict[str, Any]:
    """A run's report as plain data."""
    scenario, watch = conductor.scenario, conductor.watch
    return {
        "schema_version": SCHEMA_VERSION,
        "created_at": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "git_commit": git_commit(),
        "machine": machine(),
        "model": dataclasses.asdict(conductor.model) if conductor.model else {},
        "settings": server_settings(own_settings),
        "scenario": scenario.plain(conductor.process_count),
        "texts": conductor.texts,
        "phases": conductor.phases,
        "seconds": _seconds(conductor.samples),
        "latency_bucket_ratio": BUCKET_RATIO,
        "server": watch.rows,
        "server_counters": watch.counters(),
        "search": scenario.search.result() if scenario.search else None,
        "missing": watch.missing,
        "problems": list(problems),
    }


def read_document(path: Path) -> dict[str, Any]:
    """Reads a report.

    Raises:
        UnreadableReport: It is none, or one of another schema.
    """
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
        version = report["schema_version"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UnreadableReport(f"{path} is no report of a load test: {error}") from error
    if version != SCHEMA_VERSION:
        raise UnreadableReport(f"{path} has schema version {version}; this program reads {SCHEMA_VERSION}.")
    if absent := set(FIELDS) - set(report):
        raise UnreadableReport(f"{path} lacks {', '.join(sorted(absent))}.")
    return report


def _seconds(samples: Samples) -> list[dict[str, Any]]:
    """One row a second and kind; latencies as pairs of bucket and count."""
    return [
        {"t": second, "kind": kind, **cell.counts, "latencies": sorted(cell.latencies.items())}
        for (second, kind), cell in sorted(samples.cells.items())
    ]
