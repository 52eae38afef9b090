"""Holds one report against another: what differs in their set-up, every number of both, and problems that are new."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from load_report.compared_calls import compare_calls
from load_report.compared_row import ComparedRow
from load_report.compared_server import compare_cpu, compare_memory, compare_search, compare_stages

_PERCENTILE = re.compile(r"^((?:p\d+|goodput) of .+?) is .*")
# A number by itself: neither that of `p99` nor one in the name of a kind.
_MEASURED = re.compile(r"(?<![\w.-])\d[\d.,]*\d*%?(?![\w-])")


@dataclass(frozen=True, slots=True)
class Comparison:
    """What two reports say beside each other."""

    rows: list[ComparedRow]
    left_out: list[str]
    """What only one of them has, in words."""


def differences(first: Mapping[str, Any], second: Mapping[str, Any]) -> list[str]:
    """What makes two reports answer different questions."""
    compared = [("model", "id"), ("model", "fingerprint"), ("machine", "cpu"), ("machine", "cores")]
    for name in sorted(first["scenario"].keys() | second["scenario"].keys()):
        # How the load is made is no part of what is offered, and limits are only what is made of it.
        if name not in ("processes", "connections", "limits"):
            compared.append(("scenario", name))
    return [f"{part}.{name}" for part, name in compared if first[part].get(name) != second[part].get(name)]


def compare(first: Mapping[str, Any], second: Mapping[str, Any], tolerance: float) -> Comparison:
    """Every number that both reports have, phase by phase.

    Args:
        first: What it was.
        second: What it is now.
        tolerance: 0.1 calls a row worse when its whole interval is over 1.1.
    """
    generator = np.random.default_rng(0)
    reports = (first, second)
    named = [_named(report["phases"]) for report in reports]
    pairs = [(phase, named[1][name]) for name, phase in named[0].items() if name in named[1]]
    # As on the page: where the time goes in an overload is told by its latencies.
    judged = [pair for pair in pairs if pair[0]["judged"]] or pairs
    rows: list[ComparedRow | None] = [compare_search(reports, tolerance), compare_memory(reports, tolerance)]
    for pair in pairs:
        rows += compare_calls(reports, pair, tolerance, generator)
        rows.append(compare_cpu(reports, pair, tolerance, generator))
        if pair in judged:
            rows += compare_stages(pair, tolerance)
    return Comparison([row for row in rows if row is not None], _left_out(reports, named, pairs))


def new_problems(before: Sequence[str], after: Sequence[str]) -> list[str]:
    """Those that are about something that was right before, whatever was measured."""
    known = {problem_subject(problem) for problem in before}
    return [problem for problem in after if problem_subject(problem) not in known]


def problem_subject(problem: str) -> str:
    """What a problem (traffic/limits.py) is about: phase, kind and limit, without what was measured."""
    phase, parted, what = problem.rpartition(": ") if problem.count(": ") == 1 else ("", "", problem)
    return phase + parted + _MEASURED.sub("#", _PERCENTILE.sub(r"\1", what))


def _named(phases: Sequence[Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    """Phases by name; of those that share one, the second as `10/s (2)`."""
    seen: Counter[str] = Counter()
    found = {}
    for phase in phases:
        seen[phase["name"]] += 1
        number = seen[phase["name"]]
        name = phase["name"] if number == 1 else f"{phase['name']} ({number})"
        found[name] = {**phase, "name": name}
    return found


def _left_out(
    reports: Sequence[Mapping[str, Any]],
    named: Sequence[Mapping[str, Any]],
    pairs: Sequence[tuple[Mapping[str, Any], Mapping[str, Any]]],
) -> list[str]:
    said = []
    for which, own, other in (("before", 0, 1), ("after", 1, 0)):
        if phases := [name for name in named[own] if name not in named[other]]:
            said.append(f"phases only in {which}: {', '.join(phases)}")
        for pair in pairs:
            for part in ("kinds", "stages"):
                if lost := [name for name in pair[own][part] if name not in pair[other][part]]:
                    said.append(f"{part} of {pair[own]['name']} only in {which}: {', '.join(lost)}")
        if reports[own]["search"] and not reports[other]["search"]:
            said.append(f"a search only in {which}")
        if not any(row.get("cpu_s") for row in reports[own]["server"]):
            said.append(f"CPU and memory: not measured in {which}")
    return said
