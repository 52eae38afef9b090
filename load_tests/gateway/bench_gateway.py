"""`make bench-gateway`: what a call costs the gateway, beside a bare grpc.aio echo of the same bytes, and where.

Each part starts servers of its own. After each one `--out` holds all that is known: results.json, table.md.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

_LOAD_TESTS = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(_LOAD_TESTS), str(_LOAD_TESTS / "clients")]

import bulk  # noqa: E402  # Scripts beside each other, not a package.
import cost  # noqa: E402
import one_request  # noqa: E402
import saturated  # noqa: E402
import worker_counts  # noqa: E402
import worker_shares  # noqa: E402
from cpu_quota import quotas_can_be_set  # noqa: E402
from measurement import Failure, Measurement, Row, Tables  # noqa: E402
from own_children import own_children  # noqa: E402
from part_tables import table, tables  # noqa: E402


def _profile(plan: Measurement) -> Tables:
    return {"one-request": one_request.measure(plan), "saturated": saturated.measure(plan)}


PARTS: Mapping[str, Callable[[Measurement], Tables]] = {
    "cost": cost.run,
    "workers": worker_counts.run,
    "shares": worker_shares.run,
    "bulk": bulk.run,
    "profile": _profile,
}


def measure(plan: Measurement, parts: Sequence[str], out: Path) -> None:
    """Runs the parts in turn; results of others that lie in `out` are kept."""
    out.mkdir(parents=True, exist_ok=True)
    place = out / "results.json"
    results: dict[str, list[Row]] = json.loads(place.read_text(encoding="utf-8")) if place.exists() else {}
    if "profile" in parts:
        saturated.find_py_spy()
    for part in parts:
        started = time.monotonic()
        found = PARTS[part](plan)
        results |= found
        place.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        (out / "table.md").write_text(tables(results), encoding="utf-8")
        print(f"\n{part} ({time.monotonic() - started:.0f} s)\n")
        print("\n".join(table(name, rows) for name, rows in found.items()), flush=True)


def _positive(text: str) -> float:
    number = float(text)
    if number <= 0:
        raise argparse.ArgumentTypeError(f"{text} is not above 0")
    return number


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--parts", nargs="+", choices=PARTS, help="all by default")
    parser.add_argument("--quick", action="store_true", help="one short turn of each row: about two minutes")
    parser.add_argument("--rounds", type=int, help="turns of each row, of which tables have medians; 3, quick 1")
    parser.add_argument("--seconds", type=_positive, help="length of one turn; 3, quick 1")
    parser.add_argument("--model", default="e5-small", help="a name or a folder")
    parser.add_argument("--out", type=Path, default=Path("build/gateway"), help="folder of results.json and table.md")
    options = parser.parse_args()
    quick = options.quick
    plan = Measurement(
        model=options.model,
        rounds=max(1, options.rounds or (1 if quick else 3)),
        seconds=options.seconds or (1.0 if quick else 3.0),
        callers=(1, 64) if quick else (1, 16, 64),
        single_calls=100 if quick else 400,
    )
    parts = options.parts or list(PARTS)
    if "shares" in parts and not quotas_can_be_set():
        if options.parts:
            sys.exit("bench-gateway: the part shares needs cgroups that this user may make, as root may")
        print("shares is left out: it needs cgroups that this user may make, as root may")
        parts.remove("shares")
    try:
        with own_children():
            measure(plan, parts, options.out)
    except Failure as failure:
        sys.exit(f"bench-gateway: {failure}")
    except KeyboardInterrupt:
        sys.exit("bench-gateway: interrupted; what was measured before is kept")


if __name__ == "__main__":
    main()
