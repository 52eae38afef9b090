"""One measured point of a series, with what a text, a call and a token cost."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Row = dict[str, Any]
_ROLES = ("worker", "triton", "encoder", "supervisor")


def make_row(series: str, x: float, measured: Mapping[str, Any], **more: object) -> Row:
    """Adds to what was measured what it comes to for each unit.

    Args:
        series: Its name in tables and plots.
        x: What grows.
        measured: As `MeasuredServer.load` returns it.
        more: Further values of the row.
    """
    cpu_s: Mapping[str, float] = measured["cpu_s"]
    texts, calls, wall_s = max(1, measured["texts"]), max(1, measured["calls"]), measured["wall_s"]
    row: Row = {
        "series": series,
        "x": x,
        "texts_per_s": texts / wall_s,
        "calls_per_s": calls / wall_s,
        "tokens_per_s": measured["tokens"] / wall_s,
        "seconds_a_call": wall_s / calls,
        "cpu_ms_a_text": sum(cpu_s.values()) / texts * 1e3,
        "cpu_ms_a_call": sum(cpu_s.values()) / calls * 1e3,
        "client_cpu_ms_a_text": measured["client_cpu_s"] / texts * 1e3,
        "texts_a_pack": texts / max(1.0, measured["packs"]),
        "packs_a_batch": measured["packs"] / max(1.0, measured["batches"]),
        "rss_mb": sum(measured["rss_peak_bytes"].values()) / 1e6,
        "worker_rss_mb": measured["rss_peak_bytes"]["worker"] / 1e6,
    }
    row |= {f"{role}_cpu_ms_a_text": cpu_s.get(role, 0.0) / texts * 1e3 for role in _ROLES}
    return {**row, **more, "measured": dict(measured)}
