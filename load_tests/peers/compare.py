"""`make bench-peers`: Polarvec through all of its server beside other people's software, in one run."""

from __future__ import annotations

import argparse
import dataclasses
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from catalogue import ROWS, SUBJECTS, Row, Subject
from contestant import Contestant, Standing
from environments import PEERS
from file_lock import FileLock
from polarvec_server.config import load_settings
from polarvec_server.models.pull import obtain
from reference import reference_vectors
from report import write
from texts import make_work


def compare(
    subject: Subject, rows: Sequence[Row], rounds: int, threads: int, seed: int, lock: FileLock, out: Path
) -> None:
    """Runs the rows on one model: first each one's vectors and settings, then rounds in which they take turns."""
    folder = obtain(subject.name, load_settings(model=subject.name).models_dir, None, print)
    work = make_work(folder, subject.texts, subject.max_tokens, seed)
    references = reference_vectors(subject, folder, work, threads, lock)
    contestants = [
        Contestant(row, subject, folder, work, threads, lock) for row in rows if subject.name in row.subjects
    ]
    standings = [contestant.standing for contestant in contestants]
    try:
        for contestant in contestants:
            contestant.qualify(references)
            print(_qualified(contestant.standing), flush=True)
        for number in range(rounds):
            # Back and forth, so that no row always follows the same one.
            for contestant in contestants if number % 2 == 0 else reversed(contestants):
                contestant.turn()
                print(f"round {number + 1}: {_turned(contestant.standing)}", flush=True)
            # After every round, so that an interrupted run leaves what it has.
            write(out, subject, work, standings, threads)
    finally:
        for contestant in contestants:
            contestant.stop()
        lock.release()
    print("\n" + (out / f"{subject.name}.md").read_text(), flush=True)


def _qualified(standing: Standing) -> str:
    if standing.problem:
        return f"{standing.row.name}: {standing.problem}"
    size = f"batch {standing.batch_size}, " if standing.batch_size else ""
    loaded = f"loaded in {standing.said['seconds']:.0f} s"
    return f"{standing.row.name}: {standing.said['format']}, {size}cosine {standing.cosine:.5f}, {loaded}"


def _turned(standing: Standing) -> str:
    if standing.problem:
        return f"{standing.row.name}: {standing.problem}"
    turn = standing.turns[-1]
    rate = f"{turn.tokens_per_s:,.0f} tokens/s, query {turn.query_ms:.2f} ms"
    return f"{standing.row.name}: {rate}, others {turn.others:.0%}"


def _names(part: str, row: Row) -> bool:
    """Whether a part of `--peers` means this row: its whole name, or a part of it that is not another row's name."""
    return part == row.name or (part in row.name and part not in {other.name for other in ROWS})


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", default=",".join(SUBJECTS), help="separated by commas")
    parser.add_argument(
        "--peers", default="", help="names of rows or parts of them, separated by commas; empty means all"
    )
    parser.add_argument("--rounds", type=int, default=3, choices=range(1, 100), metavar="N", help="turns of each row")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)), help="for every row")
    parser.add_argument("--texts", type=int, default=0, help="other than the model's own number of texts")
    parser.add_argument("--seed", type=int, default=7, help="the same seed gives the same texts")
    parser.add_argument("--out", type=Path, default=PEERS / "results", help="folder of the JSON and the tables")
    parser.add_argument("--lock", type=Path, help="a file to lock while measuring, on a shared machine")
    arguments = parser.parse_args()
    wanted = [part for part in arguments.peers.split(",") if part]
    for part in wanted:
        if not any(_names(part, row) for row in ROWS):
            sys.exit(f"There is no row {part!r} here; there are {', '.join(row.name for row in ROWS)}.")
    rows = [row for row in ROWS if not wanted or any(_names(part, row) for part in wanted)]
    arguments.out.mkdir(parents=True, exist_ok=True)
    for name in arguments.models.split(","):
        if name not in SUBJECTS:
            sys.exit(f"There is no model {name!r} here; there are {', '.join(SUBJECTS)}.")
        subject = dataclasses.replace(SUBJECTS[name], texts=arguments.texts or SUBJECTS[name].texts)
        lock = FileLock(arguments.lock)
        compare(subject, rows, arguments.rounds, arguments.threads, arguments.seed, lock, arguments.out)


if __name__ == "__main__":
    main()
