"""One visit to a GPU: every part of the GPU engine's proof in one run, and the table for docs/benchmarks.md at its end.

Each part runs in a process of its own, so that one that fails, hangs or leaves the device unusable costs only itself.
Everything is printed as it is found, and each part's numbers are written at once. Run with `make bench-gpu`; see
README.md beside this.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import json
import os
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from report import markdown
from scale import make_scale

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
# In this order; seconds that each may take. The first three are needed by others.
PARTS = {
    "environment": 60,
    "model": 90,
    "products": 150,
    "kernels": 180,
    "accuracy": 180,
    "robustness": 150,
    "throughput": 180,
    "library": 120,
    "served": 300,
}
PATHS = (ROOT / "model_repository" / "encoder" / "1", ROOT / "server", ROOT / "client", ROOT / "proto")


def main() -> None:
    """Read the command line and run the parts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dry-run", action="store_true", help="a tiny model on the CPU, to see the script work")
    parser.add_argument("--out", type=Path, default=ROOT / ".run" / "bench-gpu", help="for results.json and table.md")
    parser.add_argument(
        "--work", type=Path, help="for the random model (1.2 GB) and each part's JSON; default: OUT/work"
    )
    parser.add_argument("--seconds", type=float, default=20.0, help="the sustained product; others take a tenth each")
    parser.add_argument("--budget-s", type=float, default=570.0, help="no part starts after this, and none outlives it")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--part", choices=PARTS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    arguments.work = arguments.work or arguments.out / "work"
    arguments.work.mkdir(parents=True, exist_ok=True)
    if arguments.part:
        _run_here(arguments)
        return
    arguments.out.mkdir(parents=True, exist_ok=True)
    results = _run_all(arguments)
    table = markdown(results, arguments.dry_run)
    print("\n" + table, flush=True)
    # A bar missed is a finding and a failure alike; a part left out is neither.
    if "| FAIL |" in table or any("failed" in part for part in results.values()):
        sys.exit(1)


def _run_here(arguments: argparse.Namespace) -> None:
    """One part in this process."""
    scale = make_scale(arguments.dry_run, arguments.work, arguments.seconds)
    try:
        found = importlib.import_module(arguments.part).run(scale, _read_all(arguments.work))
    except Exception as error:
        traceback.print_exc()
        found = {"failed": f"{type(error).__name__}: {error}"}
    (arguments.work / f"{arguments.part}.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def _run_all(arguments: argparse.Namespace) -> dict[str, Any]:
    """Run the parts asked for; what earlier visits left in the work folder of the others counts too."""
    started = time.monotonic()
    for name in arguments.parts:
        (arguments.work / f"{name}.json").unlink(missing_ok=True)
    for name in arguments.parts:
        left = arguments.budget_s - (time.monotonic() - started)
        print(f"\n== {name} ({time.monotonic() - started:.0f} s so far)", flush=True)
        path = arguments.work / f"{name}.json"
        if left < 5:
            path.write_text(json.dumps({"left_out": "no time was left"}) + "\n", encoding="utf-8")
            _keep(arguments)
            continue
        reason = _run_part(name, arguments, min(PARTS[name], left))
        if reason and not path.is_file():
            print(f"  {name} did not end well: {reason}", flush=True)
            path.write_text(json.dumps({"failed": reason}) + "\n", encoding="utf-8")
        _keep(arguments)
    return _read_all(arguments.work)


def _keep(arguments: argparse.Namespace) -> None:
    """Write all that is known so far, for a visit may be cut off."""
    results = _read_all(arguments.work)
    (arguments.out / "results.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    (arguments.out / "table.md").write_text(markdown(results, arguments.dry_run) + "\n", encoding="utf-8")


def _run_part(name: str, arguments: argparse.Namespace, seconds: float) -> str:
    """Run one part; returns why it did not end well, or nothing."""
    command = [sys.executable, str(HERE / "bench_gpu.py"), "--part", name, "--work", str(arguments.work)]
    command += ["--seconds", str(arguments.seconds)]
    command += ["--dry-run"] if arguments.dry_run else []
    known = os.environ.get("PYTHONPATH", "")
    path = os.pathsep.join([*map(str, PATHS), *([known] if known else [])])
    environment = {**os.environ, "PYTHONPATH": path, "PYTHONUNBUFFERED": "1", "TOKENIZERS_PARALLELISM": "true"}
    return run_within(command, environment, seconds)


def run_within(command: Sequence[str], environment: Mapping[str, str], seconds: float) -> str:
    """Run a command for some time at most, and end it with all that it started; returns what went wrong, or nothing."""
    process = subprocess.Popen(command, env=environment, start_new_session=True)
    try:
        code = process.wait(seconds)
    except subprocess.TimeoutExpired:
        return f"it took longer than {seconds:.0f} s"
    finally:
        # A server that outlived its part would share the GPU with the next one.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    return f"exit code {code}" if code else ""


def _read_all(work: Path) -> dict[str, Any]:
    found = {name: work / f"{name}.json" for name in PARTS}
    return {name: json.loads(path.read_text(encoding="utf-8")) for name, path in found.items() if path.is_file()}


if __name__ == "__main__":
    main()
