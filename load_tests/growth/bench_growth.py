"""`make bench-growth`: how cost grows with texts, their length, callers, workers and models.

Each part starts servers of its own. After each one `--out` holds all that is known: results.json, table.md, plots.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import callers
import models
import text_count
import text_length
import workers
from own_children import own_children  # One folder up, which `callers` put on the path.
from plan import PARTS, Plan, make_plan
from plots import plot
from row import Row
from tables import table

Part = Callable[[Plan, set[int]], list[Row]]


def measure(plan: Plan, parts: list[str], server_cores: set[int], out: Path) -> None:
    """Runs the parts in turn; results of others that lie in `out` are kept."""
    out.mkdir(parents=True, exist_ok=True)
    place = out / "results.json"
    results: dict[str, list[Row]] = json.loads(place.read_text(encoding="utf-8")) if place.exists() else {}
    with tempfile.TemporaryDirectory(prefix="growth-models-") as work:
        runs: dict[str, Part] = {
            "text-count": text_count.run,
            "text-length": text_length.run,
            "callers": callers.run,
            "workers": workers.run,
            "models": partial(models.run, work=Path(work)),
        }
        for part in parts:
            started = time.monotonic()
            results[part] = runs[part](plan, server_cores)
            place.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
            write(results, out)
            print(f"\n## {part} ({time.monotonic() - started:.0f} s)\n\n{table(part, results[part])}", flush=True)


def write(results: dict[str, list[Row]], out: Path) -> None:
    """Writes tables and plots of whatever was measured."""
    known = [part for part in PARTS if part in results]
    text = "\n".join(f"## {part}\n\n{table(part, results[part])}" for part in known)
    (out / "table.md").write_text(text, encoding="utf-8")
    for part in known:
        plot(part, results[part], out / f"growth-{part}.svg")


def _parts(text: str) -> list[str]:
    chosen = text.split(",")
    wrong = [part for part in chosen if part not in PARTS]
    if wrong:
        raise argparse.ArgumentTypeError(f"there is no part {wrong[0]}; there are {', '.join(PARTS)}")
    return chosen


def main() -> None:
    """Reads the command line."""
    cores = sorted(os.sched_getaffinity(0))
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--parts", type=_parts, default=list(PARTS), help=f"of {','.join(PARTS)}; all by default")
    parser.add_argument("--quick", action="store_true", help="a third of the points, for shorter: about two minutes")
    parser.add_argument("--most", type=int, default=0, help="leaves out every point beyond; 0 means none")
    parser.add_argument("--seconds", type=float, help="of one point; 1, or 0.6 with --quick")
    parser.add_argument("--model", default="e5-small", help="a small one, whose engine is run for real")
    parser.add_argument("--long-model", default="arctic-l-2", help="one that reads long texts")
    parser.add_argument(
        "--server-cores",
        type=lambda text: {int(core) for core in text.split(",")},
        help="where client and server shall not share cores; all but the last one by default",
    )
    parser.add_argument("--out", type=Path, default=Path("build/growth"), help="folder of JSON, tables and plots")
    parser.add_argument("--redraw", action="store_true", help="only writes tables and plots anew")
    options = parser.parse_args()
    if options.redraw:
        write(json.loads((options.out / "results.json").read_text(encoding="utf-8")), options.out)
        return
    # The server's tokenizer runs on one thread a call; ours, which is compared with it, does too.
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    seconds = options.seconds or (0.6 if options.quick else 1.0)
    plan = make_plan(options.model, options.long_model, quick=options.quick, most=options.most, seconds=seconds)
    with own_children():
        measure(plan, options.parts, options.server_cores or set(cores[:-1]) or set(cores), options.out)


if __name__ == "__main__":
    main()
