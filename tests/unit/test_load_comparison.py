"""Two reports side by side: what is called worse, better, or not comparable; and the page that a report becomes."""

from __future__ import annotations

import copy
import json
import random
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

sys.path.append(str(Path(__file__).parents[2] / "load_tests"))

from load_report.comparison import new_problems
from load_report.document import FIELDS, SCHEMA_VERSION
from load_report.page import write_report
from load_report.phase_rows import phase_row
from traffic.arrivals import Phase
from traffic.limits import parse_limits, run_problems
from traffic.samples import BUCKET_RATIO, Samples, bucket

LOAD_TESTS = Path(__file__).parents[2] / "load_tests"
PHASE = Phase("steady", 0, 20.0, 30.0, 30.0)


def report(median_ms: float = 20.0, *, good: float = 1.0, seed: int = 1, name: str = "steady") -> dict[str, Any]:
    """A made-up run of 20 s with 30 calls a second, whose latencies spread by a third."""
    generator, samples = random.Random(seed), Samples()
    for second in range(20):
        cell = samples.cell(second, "query")
        for _ in range(30):
            cell.latencies[bucket(median_ms * generator.lognormvariate(0, 0.3))] += 1
            cell.counts.update(offered=1, right=1, finished=1, good=int(generator.random() < good), tokens=100)
            for stage in ("tokenize_ms", "inference_ms"):
                samples.stage(0, "query", stage, 0.2 if stage == "tokenize_ms" else median_ms)
    samples.errors[0, "query", "UNAVAILABLE <script>"] += 1
    usage = {"rss_bytes": {"engine": 1 << 28, "gateway": 1 << 27}, "machine_cpu_s": 5.0}
    gauges = {"polarvec_held_tokens": 9.0, "polarvec_in_flight_tokens": 3.0}
    server = [
        {
            "t": t / 2,
            "cpu_s": {"engine": t / 4},
            **usage,
            **gauges,
            "nv_inference_exec_count": t,
            "polarvec_encoded_texts_total": 8.0 * t,
        }
        for t in range(41)
    ]
    found = {name: {} for name in FIELDS} | {
        "schema_version": SCHEMA_VERSION,
        "phases": [phase_row(replace(PHASE, name=name), 0, samples, ["query"])],
        "seconds": [
            {"t": t, "kind": kind, **cell.counts, "latencies": sorted(cell.latencies.items())}
            for (t, kind), cell in samples.cells.items()
        ],
        "scenario": {"seed": 1, "slo_ms": {"query": 100.0}, "workload": {"about": "made up", "name": "x"}},
        "model": {"id": "m", "fingerprint": "f", "max_token_count": 512},
        "latency_bucket_ratio": BUCKET_RATIO,
        "server": server,
        "texts": [],
        "problems": [],
        "search": None,
    }
    return json.loads(json.dumps(found))


def compared(tmp_path: Path, before: dict[str, Any], after: dict[str, Any], *options: str) -> tuple[int, str]:
    places = []
    for name, content in (("before", before), ("after", after)):
        places.append(tmp_path / f"{name}.json")
        places[-1].write_text(json.dumps(content), encoding="utf-8")
    command = [sys.executable, str(LOAD_TESTS / "compare.py"), *map(str, places), *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    return done.returncode, done.stdout + done.stderr


def test_the_same_server_twice_is_not_worse(tmp_path: Path) -> None:
    code, said = compared(tmp_path, report(seed=1), report(seed=2))
    assert code == 0, said
    assert re.search(r"steady query p50 .* same$", said, re.MULTILINE), said


@pytest.mark.parametrize(
    ("before", "after", "code", "row", "verdict"),
    [
        (report(20), report(30, seed=2), 1, "p50 ms", "worse"),
        (report(30), report(20, seed=2), 0, "p99 ms", "better"),
        (report(20), report(20, good=0.7, seed=2), 1, "bad %", "worse"),
        (report(20), report(20, good=0.91, seed=2), 1, "bad %", "worse"),
        (report(20, good=0.7), report(20, seed=2), 0, "bad %", "better"),
        (report(20), report(20, good=0.0, seed=2), 1, "bad %", "worse"),
        (report(20), report(20, good=0.995, seed=2), 0, "bad %", "unclear"),
        (report(20), report(20, seed=2), 0, "bad %", "same"),
        (report(20), report(30, seed=2), 1, "inference p50 ms", "worse"),
        (report(20), report(30, seed=2), 1, "tokenize p50 ms", "same"),
    ],
    ids=[
        "slower",
        "faster",
        "fewer good",
        "a tenth fewer good",
        "more good",
        "none good",
        "a few not good",
        "all good",
        "a slower stage",
        "a stage as fast",
    ],
)
def test_a_change_beyond_the_noise_is_seen(tmp_path, before, after, code, row, verdict) -> None:
    found, said = compared(tmp_path, before, after)
    assert found == code, said
    assert re.search(rf"steady query {row} .* {verdict}$", said, re.MULTILINE), said


def times(numbers: dict[str, float], factor: float) -> dict[str, float]:
    return {name: value * factor for name, value in numbers.items()}


@pytest.mark.parametrize(("factor", "code", "verdict"), [(1.5, 1, "worse"), (1.05, 0, "same"), (0.5, 0, "better")])
@pytest.mark.parametrize(("part", "row"), [("cpu_s", "steady CPU s/Mtokens"), ("rss_bytes", "peak RSS MiB")])
def test_what_the_server_spends_is_compared(tmp_path, part, row, factor, code, verdict) -> None:
    after = report()
    for sample in after["server"]:
        sample[part] = times(sample[part], factor)
    found, said = compared(tmp_path, report(), after)
    assert found == code, said
    assert re.search(rf"^{row} .* {verdict}$", said, re.MULTILINE), said


def test_cpu_is_that_of_the_phase_by_its_tokens(tmp_path: Path) -> None:
    said = compared(tmp_path, report(), report())[1]
    # 10 s for 600 calls of 100 tokens.
    assert re.search(r"^steady CPU s/Mtokens +167 +167 ", said, re.MULTILINE), said


def test_answers_that_no_longer_come_are_a_lower_throughput_and_a_late_percentile(tmp_path: Path) -> None:
    after = report()
    for row in after["seconds"]:
        row.update(right=row["right"] // 2, finished=row["finished"] // 2, latencies=row["latencies"][:5])
    after["phases"][0]["total"]["throughput"] /= 2
    code, said = compared(tmp_path, report(), after)
    assert code == 1
    assert re.search(r"^steady calls/s +30 +15 +2.00 .* worse$", said, re.MULTILINE), said
    assert re.search(r"^steady query p95 ms .* inf .* worse$", said, re.MULTILINE), said


def search(passed: float | None, failed: float | None) -> dict[str, Any]:
    return {"passed_rate": passed, "failed_rate": failed, "because": [], "says": ""}


@pytest.mark.parametrize(
    ("before", "after", "code", "verdict"),
    [
        (search(80, 88), search(40, 44), 1, "worse"),
        (search(80, 88), search(None, 0.1), 1, "worse"),
        (search(80, 88), search(78, 85), 0, "unclear"),
        (search(80, 88), search(160, 170), 0, "better"),
        (search(80, 88), search(160, None), 0, "better"),
        (search(None, 20), search(40, 44), 0, "better"),
    ],
    ids=["half", "none", "a little less", "twice", "no end found", "first one"],
)
def test_the_rate_that_a_search_found_is_compared(tmp_path, before, after, code, verdict) -> None:
    found, said = compared(tmp_path, {**report(), "search": before}, {**report(), "search": after})
    assert found == code, said
    assert re.search(rf"^rate a search found /s .* {verdict}$", said, re.MULTILINE), said


def test_what_only_one_report_has_is_named(tmp_path: Path) -> None:
    before, after = report(), report()
    for made, name in ((before, "10/s"), (after, "20/s")):
        made["phases"] += report(name=name)["phases"]
    after["phases"] += report(name="20/s")["phases"]
    for sample in after["server"]:
        del sample["cpu_s"]
    said = compared(tmp_path, before, after)[1]
    assert "Not compared: phases only in before: 10/s\n" in said
    assert "Not compared: phases only in after: 20/s, 20/s (2)\n" in said
    assert "Not compared: CPU and memory: not measured in after\n" in said


def broken(limits: str, *reports: dict[str, Any]) -> list[list[str]]:
    return [run_problems(made["phases"], parse_limits(limits, ["query"])) for made in reports]


@pytest.mark.parametrize("limits", ["query.p99=1", "p50=1", "goodput=1000", "failures=0"])
def test_a_problem_is_new_by_what_it_is_about_and_not_by_its_number(tmp_path: Path, limits: str) -> None:
    before, after, other = report(30), report(20, seed=2), report(20, name="10/s")
    for made, count in ((before, 60), (after, 30), (other, 30)):
        made["phases"][0]["total"]["failure_ratio"] = count / 600
        for part in ("goodput", "wrong"):
            made["phases"][0]["total"][part] = count
    (first, second, elsewhere) = broken(limits, before, after, other)
    assert len(first) == len(second) == 2 and not set(first) & set(second)
    assert new_problems(first, second) == []
    # The same limit in another phase, and another limit in the same one.
    assert new_problems(first, elsewhere) == elsewhere
    (others,) = broken("p95=1", after)
    assert new_problems(first, others) == others[1:]
    code, said = compared(tmp_path, {**before, "problems": first}, {**after, "problems": second})
    assert code == 0 and "New: " not in said and f"As before: {second[0]}" in said, said
    code, said = compared(tmp_path, report(), {**report(), "problems": second})
    assert code == 1 and f"New: {second[0]}" in said, said


def test_a_tolerance_forgives(tmp_path: Path) -> None:
    assert compared(tmp_path, report(20), report(30, seed=2), "--tolerance", "1")[0] == 0


@pytest.mark.parametrize(("part", "name"), [("scenario", "seed"), ("model", "fingerprint"), ("machine", "cores")])
def test_reports_of_something_else_are_refused_unless_told(tmp_path: Path, part: str, name: str) -> None:
    other = report()
    other[part][name] = "other"
    code, said = compared(tmp_path, report(), other)
    assert code == 2
    assert f"differ in {part}.{name}" in said
    assert compared(tmp_path, report(), other, "--anyway")[0] == 0


@pytest.mark.parametrize("damage", ["version", "field", "text"])
def test_what_is_no_report_is_refused(tmp_path: Path, damage: str) -> None:
    other: Any = report()
    if damage == "version":
        other["schema_version"] = 99
    elif damage == "field":
        del other["seconds"]
    else:
        other = "hello"
    assert compared(tmp_path, report(), other)[0] == 2


def test_the_page_needs_nothing_from_outside_and_escapes_what_it_shows(tmp_path: Path) -> None:
    made = copy.deepcopy(report())
    place = write_report(made, tmp_path / "report.html")
    page = place.read_text(encoding="utf-8")
    assert not re.search(r"https?:|//[a-z]|<link|<script|<img|@import|xmlns", page)
    assert all(target.startswith("#") for target in re.findall(r'(?:href|src)="([^"]*)"', page))
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    # Latency, calls, queue, batches, CPU and memory.
    assert page.count("<svg") == 6
    assert json.loads((tmp_path / "report.json").read_text(encoding="utf-8")) == made
    assert len(page) < 400_000
