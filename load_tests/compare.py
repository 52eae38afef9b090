"""Compares two reports of load tests: `compare.py before.json after.json`; exit code 1 if something got worse."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from load_report.compared_row import VERDICTS, ComparedRow
from load_report.comparison import compare, differences, new_problems
from load_report.document import UnreadableReport, read_document

_EXPLAINED = """A change over 1 is worse; that of bad calls (late, wrong, failed) is in percentage points. The interval
comes from drawing stretches of each run again; other runs on another day differ by more, so repeat a run before you
believe a small step. Worse or better: the whole interval lies beyond the tolerance. Same: it lies within. Unclear: the
runs are too short or too noisy to say. Memory and stages have no interval; stages get half as much tolerance
again, and 1 ms."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("before", type=Path)
    parser.add_argument("after", type=Path)
    parser.add_argument("--tolerance", type=float, default=0.1, help="0.1: up to a tenth more is not worse")
    parser.add_argument("--anyway", action="store_true", help="compares different scenarios, models or machines too")
    options = parser.parse_args()
    if options.tolerance < 0:
        parser.error("--tolerance must not be negative")
    try:
        before, after = read_document(options.before), read_document(options.after)
    except UnreadableReport as error:
        print(error, file=sys.stderr)
        return 2
    if (found := differences(before, after)) and not options.anyway:
        names = ", ".join(found)
        print(f"These reports cannot be compared: they differ in {names}. --anyway does it.", file=sys.stderr)
        return 2
    comparison = compare(before, after, options.tolerance)
    rows = comparison.rows
    print(f"{'':40} {'before':>9} {'after':>9} {'change':>8}  {'99 % interval':>15}  verdict")
    for row in rows:
        print(_line(row))
    print(_EXPLAINED)
    for what in comparison.left_out:
        print(f"Not compared: {what}")
    if not rows:
        print("No phase has enough answers in both reports; nothing was compared.", file=sys.stderr)
        return 2
    counts = {verdict: sum(row.verdict == verdict for row in rows) for verdict in VERDICTS}
    print(f"\nVerdict: {', '.join(f'{count} {verdict}' for verdict, count in counts.items())} of {len(rows)} rows.")
    found = new_problems(before["problems"], after["problems"])
    for problem in after["problems"]:
        print(f"{'New' if problem in found else 'As before'}: {problem}")
    for problem in new_problems(after["problems"], before["problems"]):
        print(f"Gone: {problem}")
    return 1 if counts["worse"] or found else 0


def _line(row: ComparedRow) -> str:
    form = "+.1f" if row.in_points else ".2f"
    change = f"{row.change:{form}}{' pt' if row.in_points else ''}"
    interval = "" if row.low == row.high else f"{row.low:{form}} - {row.high:{form}}"
    first, second = (f"{value:,.{2 if value < 10 else 0}f}" for value in (row.first, row.second))
    return f"{row.name:40} {first:>9} {second:>9} {change:>8}  {interval:>15}  {row.verdict}"


if __name__ == "__main__":
    sys.exit(main())
