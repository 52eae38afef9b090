"""The tables of a comparison at the same arrival rates, in markdown, and all of it as JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, astuple, dataclass
from pathlib import Path

from arrivals import TEXTS_A_CALL, WORKLOADS, Kind, Workload
from goodput import MAX_BAD_SHARE, MAX_P99_MS, Stretch
from rate_contestant import Load, RateStanding
from report import processor

KINDS: Mapping[Kind, str] = {"query": "questions", "document": "document calls"}


@dataclass(frozen=True, slots=True)
class RateReport:
    """Everything that was measured on one model."""

    model: str
    rounds: int
    load: Load
    slo_ms: Mapping[Kind, float]
    standings: Sequence[RateStanding]

    def markdown(self) -> str:
        """Per workload latencies, goodput and cost with a column for each rate; then what went wrong."""
        load = self.load
        lines = [
            f"### {self.model} at the same arrival rates: {load.process}, {self.rounds} x {load.seconds:g} s a rate, "
            f"{load.threads} threads of {processor()}",
            "",
            f"`-`: not tried, because a lower rate had a p99 above {MAX_P99_MS / 1e3:g} s or more than "
            f"{MAX_BAD_SHARE:.0%} of its calls without a right answer; `none`: that many calls never had one.",
        ]
        for workload in WORKLOADS:
            if self.load.rates[workload.name]:
                lines += ["", *self._workload(workload)]
        lines += ["", *self._servers(), "", *self._failures()]
        return "\n".join(lines).rstrip()

    def write(self, out: Path) -> None:
        """Writes rates-<model>.md and rates-<model>.json (every single call)."""
        file = out / f"rates-{self.model}.md"
        file.write_text(self.markdown() + "\n")
        rows = []
        for standing in self.standings:
            stretches = [
                {"workload": workload, "rate": rate, **self._summary(stretch)}
                for (workload, rate), stretch in standing.stretches.items()
            ]
            rows.append({**asdict(standing), "stretches": stretches})
        content = {"model": self.model, "processor": processor(), "rounds": self.rounds, "load": asdict(self.load)}
        content |= {"slo_ms": dict(self.slo_ms), "rows": rows}
        file.with_suffix(".json").write_text(json.dumps(content) + "\n")

    def _summary(self, stretch: Stretch) -> dict:
        latencies = {
            f"{kind}_p{percent}_ms": stretch.percentile_ms(percent, kind) for kind in KINDS for percent in (50, 99)
        }
        finite = {name: value if value is None or value < math.inf else "none" for name, value in latencies.items()}
        return finite | {
            "offered": stretch.offered,
            "goodput": stretch.goodput(self.slo_ms),
            "failures": stretch.failures,
            "cpu_s_per_mtok": stretch.cpu_s_per_mtok,
            "generator_cpu_s_per_mtok": stretch.generator_cpu_s_per_mtok,
            "others": stretch.others,
            "answers": [astuple(answer) for answer in stretch.answers],
        }

    def _workload(self, workload: Workload) -> list[str]:
        share = workload.document_share
        mix = f"{1 - share:.0%} questions" + (
            f", {share:.0%} calls with {TEXTS_A_CALL['document']} documents" if share else ", one a call"
        )
        lines = [f"**{workload.name.capitalize()}** ({mix}); columns are calls a second.", ""]
        for kind, name in KINDS.items():
            if kind == "query" or share:
                lines += self._table(workload, f"{name}, p50 / p99 ms", lambda one, kind=kind: _latencies(one, kind))
        slos = ", ".join(f"{name} {self.slo_ms[kind]:g} ms" for kind, name in KINDS.items() if kind == "query" or share)
        lines += self._table(workload, f"goodput, % in time ({slos})", self._good)
        return lines + self._table(workload, "CPU s / Mtok, server + client", _cost)[:-1]

    def _table(self, workload: Workload, name: str, cell: Callable[[Stretch], str]) -> list[str]:
        rates = self.load.rates[workload.name]
        lines = [f"| {name} | {' | '.join(f'{rate:g}' for rate in rates)} |", "|---" + "|---:" * len(rates) + "|"]
        for standing in self._ranked():
            stretches = [standing.stretches.get((workload.name, rate)) for rate in rates]
            cells = " | ".join(cell(stretch) if stretch else "-" for stretch in stretches)
            lines.append(f"| {standing.row.name} | {cells} |")
        return [*lines, ""]

    def _servers(self) -> list[str]:
        lines = ["| row | format | least cosine | peak MB | others |", "|---|---|---:|---:|---:|"]
        for standing in self.standings:
            if standing.stretches:
                others = max(stretch.others for stretch in standing.stretches.values())
                lines.append(
                    f"| {standing.row.name} | {standing.format} | {standing.cosine:.5f} "
                    f"| {standing.peak_bytes / 1e6:,.0f} | {others:.0%} |"
                )
        return lines

    def _failures(self) -> list[str]:
        lines = [f"- {standing.row.name}: {standing.problem}" for standing in self.standings if standing.problem]
        for standing in self._ranked():
            for (workload, rate), stretch in standing.stretches.items():
                if stretch.failures:
                    named = ", ".join(f"{count} {reason}" for reason, count in stretch.failures.items())
                    lines.append(
                        f"- {standing.row.name}, {workload} at {rate:g}: {named} of {len(stretch.answers)} calls"
                    )
        return lines

    def _good(self, stretch: Stretch) -> str:
        return f"{stretch.good_count(self.slo_ms) / len(stretch.answers):.0%}" if stretch.answers else "-"

    def _ranked(self) -> list[RateStanding]:
        return [standing for standing in self.standings if not standing.problem]


def _latencies(stretch: Stretch, kind: Kind) -> str:
    values = [stretch.percentile_ms(percent, kind) for percent in (50, 99)]
    return " / ".join("-" if value is None else "none" if value == math.inf else f"{value:,.0f}" for value in values)


def _cost(stretch: Stretch) -> str:
    costs = (stretch.cpu_s_per_mtok, stretch.generator_cpu_s_per_mtok)
    return " + ".join("-" if cost is None else f"{cost:,.0f}" for cost in costs)
