"""The table of a comparison in markdown, and the bars that the SDK is held to."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from catalogue import Row

Turn = Mapping[str, float]
# What is held against the other clients, and whether more is better.
_COUNTS = {
    "texts_per_s": True,
    "cpu_s": False,
    "peak_bytes": False,
    "first_s": False,
}


@dataclass(frozen=True, slots=True)
class Comparison:
    """Everything that was measured."""

    model: str
    dimensions: int
    text_count: int
    mean_tokens: float
    batch_size: int
    turns: Mapping[Row, Sequence[Turn]]
    imports: Mapping[str, float]

    def median(self, row: Row, count: str) -> float:
        """Median over a row's turns."""
        return statistics.median(turn[count] for turn in self.turns[row])


def markdown(comparison: Comparison) -> str:
    """The table, the imports and the bars."""
    one = next(iter(comparison.turns))
    lines = [
        f"{comparison.text_count:,} texts of {comparison.mean_tokens:.1f} tokens on average, {comparison.model} "
        f"({comparison.dimensions} dimensions) on the null engine; {comparison.batch_size} texts a call where the "
        f"caller cuts; median of {len(comparison.turns[one])} rounds.\n",
        "| client | texts/s | wall s | client's CPU s | peak MB | of it for the job | first answer s |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for row in comparison.turns:
        wall_s, cpu_s, peak, before, first_s = (
            comparison.median(row, count) for count in ("wall_s", "cpu_s", "peak_bytes", "start_peak_bytes", "first_s")
        )
        lines.append(
            f"| {row.name} | {comparison.median(row, 'texts_per_s'):,.0f} | {wall_s:.1f} | {cpu_s:.2f} "
            f"| {peak / 1e6:,.0f} | {(peak - before) / 1e6:,.0f} | {first_s:.2f} |"
        )
    lines += ["", *_import_lines(comparison.imports), "", *bars(comparison)]
    return "\n".join(lines)


def bars(comparison: Comparison) -> list[str]:
    """For each count: is any way of the SDK slower than every way of the others? And the best against the best."""
    ours = [row for row in comparison.turns if row.ours]
    others = [row for row in comparison.turns if not row.ours]
    if not ours or not others:
        return []
    lines = []
    for count, more_is_better in _COUNTS.items():
        best, worst = (max, min) if more_is_better else (min, max)
        values = {row: comparison.median(row, count) for row in comparison.turns}
        last = worst(values, key=lambda row: values[row])
        best_of_ours, best_of_others = (best(values[row] for row in rows) for rows in (ours, others))
        verdict = "MISSED" if last.ours else "reached"
        lines.append(
            f"- {verdict}: {count}: last is {last.name}; best of the SDK to best of the others "
            f"{best_of_ours / best_of_others:.2f}"
        )
    return lines


def _import_lines(imports: Mapping[str, float]) -> list[str]:
    return [
        "| import | seconds | to the first |",
        "|---|---:|---:|",
        *(
            f"| `{statement}` | {seconds:.3f} | {seconds / next(iter(imports.values())):.2f} |"
            for statement, seconds in imports.items()
        ),
    ]
