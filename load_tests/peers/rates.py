"""`make bench-rates`: Polarvec and other servers given the same texts at the same times, open loop, in one run."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from arrivals import WORKLOADS
from catalogue import SUBJECTS, Row, Subject
from environments import PEERS
from file_lock import FileLock
from polarvec_server.config import load_settings
from polarvec_server.models.folder import read_folder
from polarvec_server.models.pull import obtain
from rate_catalogue import ROWS
from rate_contestant import Load, RateContestant, RateStanding
from rate_plot import plot
from rate_report import RateReport
from rate_work import make_rate_work

sys.path.append(str(Path(__file__).resolve().parents[1]))
from own_children import own_children

_RATES = {"questions": "10,80,160,320", "mixed": "20,40,80,160"}


def compare(arguments: argparse.Namespace, rows: Sequence[Row], load: Load) -> RateReport:
    """Lets the rows take turns, each through all of its rates, and writes the report after every turn."""
    folder = obtain(arguments.model, load_settings(model=arguments.model).models_dir, None, print)
    subject = _subject(arguments.model, folder, arguments.documents)
    # Given away after every turn of a row.
    lock = FileLock(arguments.lock, hold_s=0)
    work = make_rate_work(subject, folder, arguments.seed, load.threads, lock)
    contestants = [RateContestant(row, subject, folder, work, load, lock) for row in rows]
    standings = sorted((each.standing for each in contestants), key=lambda standing: ROWS.index(standing.row))
    slo_ms = {"query": arguments.question_slo_ms, "document": arguments.document_slo_ms}
    report = RateReport(subject.name, arguments.rounds, load, slo_ms, standings)
    for number in range(arguments.rounds):
        # Back and forth, so that no row always follows the same one.
        for contestant in contestants if number % 2 == 0 else reversed(contestants):
            contestant.turn(number)
            print(f"round {number + 1}: {_turned(contestant.standing)}", flush=True)
            # After every turn, so that an interrupted run leaves what it has.
            report.write(arguments.out)
    print(f"\n{report.markdown()}", flush=True)
    return report


def _subject(name: str, folder: Path, documents: int) -> Subject:
    known = SUBJECTS.get(name)
    pooling = known.pooling if known else read_folder(folder).pooling
    return Subject(name, pooling, texts=documents, max_tokens=400, query_times=1)


def _turned(standing: RateStanding) -> str:
    if standing.problem:
        return f"{standing.row.name}: {standing.problem}"
    highest = {
        workload.name: max((rate for name, rate in standing.stretches if name == workload.name), default=0)
        for workload in WORKLOADS
    }
    reached = ", ".join(f"{name} to {rate:g}/s" for name, rate in highest.items())
    return f"{standing.row.name}: {standing.format}, cosine {standing.cosine:.5f}, {reached}"


def _rates(text: str) -> tuple[float, ...]:
    return tuple(sorted(float(part) for part in text.split(",") if part))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="e5-small", help="a pulled model or a folder")
    parser.add_argument(
        "--peers", default="", help="names of rows or parts of them, in the order of their turns; empty: all"
    )
    parser.add_argument("--rates", type=_rates, default=None, help="calls a second, for both workloads")
    for workload, rates in _RATES.items():
        parser.add_argument(f"--{workload}-rates", type=_rates, default=_rates(rates), help=f"default {rates}")
    parser.add_argument("--seconds", type=float, default=5.0, help="of each rate in each round")
    parser.add_argument("--rounds", type=int, default=2, choices=range(1, 100), metavar="N", help="turns of each row")
    parser.add_argument("--arrivals", default="poisson", choices=["poisson", "constant"])
    parser.add_argument("--documents", type=int, default=512, help="how many different ones")
    parser.add_argument("--question-slo-ms", type=float, default=250.0)
    parser.add_argument("--document-slo-ms", type=float, default=2000.0)
    parser.add_argument("--max-open", type=int, default=256, help="calls that are due beyond so many are dropped")
    parser.add_argument("--timeout-s", type=float, default=10.0, help="a call is given up so long after it was due")
    parser.add_argument("--max-others", type=float, default=0.1, help="noise above which a rate is taken again")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)), help="for every row")
    parser.add_argument("--seed", type=int, default=7, help="the same seed gives the same texts at the same times")
    parser.add_argument("--out", type=Path, default=PEERS / "results", help="folder of rates-<model>.md and .json")
    parser.add_argument("--plot", type=Path, help="SVG to write; default: rates-<model>.svg beside them")
    parser.add_argument("--lock", type=Path, help="a file to lock while measuring, on a shared machine")
    return parser


def _chosen(wanted: str) -> list[Row]:
    parts = [part for part in wanted.split(",") if part]
    for part in parts:
        if not any(part in row.name for row in ROWS):
            sys.exit(f"There is no row {part!r} here; there are {', '.join(row.name for row in ROWS)}.")
    # In the order in which they are named, each once.
    return list({row.name: row for part in parts or [""] for row in ROWS if part in row.name}.values())


def main() -> None:
    """Reads the command line."""
    arguments = _parser().parse_args()
    rates = {name: arguments.rates or getattr(arguments, f"{name}_rates") for name in _RATES}
    load = Load(
        rates,
        arguments.seconds,
        arguments.seed,
        arguments.arrivals,
        arguments.max_open,
        arguments.timeout_s,
        arguments.threads,
        arguments.max_others,
    )
    arguments.out.mkdir(parents=True, exist_ok=True)
    with own_children():
        report = compare(arguments, _chosen(arguments.peers), load)
    plot(report, arguments.plot or arguments.out / f"rates-{report.model}.svg")


if __name__ == "__main__":
    main()
