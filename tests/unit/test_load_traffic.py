"""What the load tests offer and how they count it: schedules, workloads, checks, limits, the search."""

from __future__ import annotations

import json
import random
import re
import subprocess
import sys
import time
from collections import Counter
from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np
import polarvec
import pytest
from unit.scripted_server import RunningServer, vector

sys.path.append(str(Path(__file__).parents[2] / "load_tests"))

from load_report.phase_rows import phase_row
from traffic.arrivals import Phase, arrivals, call_seed
from traffic.caller import count_due, count_right
from traffic.limits import parse_limits, parse_slos, problems_of, run_problems, search_limits
from traffic.pools import build_pools
from traffic.references import References, WrongVector
from traffic.samples import Samples, bucket, percentile
from traffic.scenario import SHAPES
from traffic.search import Search
from traffic.shapes import ShapeOptions
from traffic.stretch import orders
from traffic.workload import WORKLOADS, BadWorkload, Workload, read_workload

STEADY = Phase("steady", 0, 20.0, 50.0, 50.0)
RAMP = Phase("ramp", 1, 20.0, 0.0, 100.0)
SIZES = {"questions": 100, "answers": 100, "pieces": 2000, "long": 12}


@pytest.mark.parametrize("process", ["constant", "poisson"])
@pytest.mark.parametrize("phase", [STEADY, RAMP], ids=lambda phase: phase.name)
def test_arrivals_are_as_many_as_the_rate_says_and_in_order(phase: Phase, process: str) -> None:
    times = [due_s for _, due_s in arrivals(phase, process, seed=1)]
    assert times == sorted(times)
    assert 0 <= times[0] and times[-1] <= phase.seconds
    # Poisson: 1,000 give or take four standard deviations.
    assert abs(len(times) - 1000) <= (0 if process == "constant" else 4 * 1000**0.5)
    in_first_half = sum(due_s < phase.seconds / 2 for due_s in times) / len(times)
    assert in_first_half == pytest.approx(0.5 if phase is STEADY else 0.25, abs=0.05)


def test_same_seed_gives_the_same_arrivals_and_calls_however_many_processes_share_them() -> None:
    workload = Workload(read_workload("mixed"))

    def offered(seed: int, shares: int) -> list[tuple[int, float, str, tuple[int, ...]]]:
        found = []
        for share in range(shares):
            for number, due_s in arrivals(STEADY, "poisson", seed, share=share, shares=shares):
                call = workload.call(call_seed(seed, STEADY, number), SIZES)
                found.append((number, due_s, call.kind.name, call.rows))
        return sorted(found)

    assert offered(1, 1) == offered(1, 1) == offered(1, 3)
    assert offered(1, 1) != offered(2, 1)


@pytest.mark.parametrize("name", sorted(path.stem for path in WORKLOADS.glob("*.json")))
def test_shipped_workloads_give_their_shares_and_sizes(name: str) -> None:
    workload = Workload(read_workload(name))
    generator = random.Random(1)
    calls = [workload.call(generator, SIZES) for _ in range(4000)]
    counts = Counter(call.kind.name for call in calls)
    total = sum(kind.share for kind in workload.kinds.values())
    for kind in workload.kinds.values():
        assert counts[kind.name] / 4000 == pytest.approx(kind.share / total, abs=0.03)
    assert all(call.kind.text_count[0] <= len(call.rows) <= call.kind.text_count[1] for call in calls)


def test_zipf_makes_the_first_text_twice_as_frequent_as_the_second() -> None:
    workload = Workload(read_workload("zipf"))
    generator = random.Random(1)
    rows = Counter(row for _ in range(30_000) for row in workload.call(generator, SIZES).rows)
    assert rows[0] / rows[1] == pytest.approx(2, rel=0.1)
    assert len(rows) > 1000


def test_texts_of_a_pool_differ_and_are_the_same_for_the_same_seed() -> None:
    spec = read_workload("faq")

    def pools() -> dict[str, list[str]]:
        return build_pools(spec, 1, lambda texts: [len(text) for text in texts], 512)

    assert pools() == pools()
    for name, texts in pools().items():
        assert len(set(texts)) == len(texts) > 8 * 100, name


@pytest.mark.parametrize("damage", [{"colour": 1}, {"pool": "nothing"}])
def test_a_malformed_workload_is_refused(damage: dict[str, object]) -> None:
    spec = read_workload("short")
    spec["kinds"]["query"].update(damage)
    with pytest.raises(BadWorkload):
        Workload(spec)


def test_a_stalled_callee_delays_no_arrival_and_shows_in_the_latencies() -> None:
    """In a process of its own: gevent patches nothing of ours, but its hub would stay in this one."""
    said = run_apart("""
import sys, time, gevent
sys.path.append(sys.argv[1])
from traffic.open_loop import OpenLoop
started, ended, refused = [], [], []
stalled = gevent.event.Event()
def call(order, number, due_s):
    started.append(number)
    stalled.wait()
    ended.append(time.monotonic() - due_s)
def refuse(order, number, due_s):
    refused.append(number)
    if number == 9:  # All the arrivals came while not one call had an answer.
        assert started == [0, 1, 2, 3, 4, 5] and not ended
        stalled.set()
loop = OpenLoop(call, refuse, max_open=6)
began_s = time.monotonic()
loop.run([(None, number, began_s + number * 0.02) for number in range(10)])
assert refused == [6, 7, 8, 9], refused
assert len(ended) == 6 and loop.open_count == 0
# The first was due 0.18 s before the last arrival came, and all were answered then.
assert ended[0] >= 0.18 and sorted(ended, reverse=True) == ended, ended
print("open")
""")
    assert said == "open\n"


def test_a_stalled_callee_delays_no_phase_of_a_spike() -> None:
    """No call is answered before the last one of the last phase was made."""
    said = run_apart("""
import sys
sys.path.append(sys.argv[1])
from types import SimpleNamespace
from dataclasses import astuple
from locust.env import Environment
from gevent.event import Event
from traffic.load_process import LoadProcess
from traffic.shapes import ShapeOptions, spike
(phases,) = spike(ShapeOptions(10.0, 20.0, (), 3.0, 1.0))
calls, answered, told, stalled = [], [], [], Event()
class Caller:
    def make(self, order, number, due_s):
        calls.append((order, number, due_s))
        if len(calls) == sum(phase.offered for phase in phases):
            assert not answered
            stalled.set()
        stalled.wait()
        answered.append(number)
process = LoadProcess(Environment(), lambda samples: told.append("samples"), lambda samples: told.append("done"))
process._caller = Caller()
process._caller.drop = None
process._scenario = SimpleNamespace(max_open=1000, arrivals="constant", seed=1)
process.offer({"phases": [astuple(phase) for phase in phases], "start_s": 7, "lead_s": 0.0, "share": 0, "shares": 1})
assert len(answered) == len(calls) == 40
# Where nothing is answered in between, the arrivals go on as of one load: 0.1 s apart, 0.05 s in the spike.
due = [due_s - calls[0][2] for _, _, due_s in calls]
gaps = [round(later - sooner, 6) for sooner, later in zip(due, due[1:])]
assert gaps == [0.1] * 9 + [0.075] + [0.05] * 19 + [0.075] + [0.1] * 9, gaps
assert [order.start_s for order, number, _ in calls if number == 0] == [7, 8, 9]
assert told == ["samples"] * 3 + ["done"]
print("contiguous")
""")
    assert said == "contiguous\n"


def run_apart(script: str) -> str:
    place = str(Path(__file__).parents[2] / "load_tests")
    done = subprocess.run([sys.executable, "-c", script, place], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("seconds", [15.0, 20.0, 2.0, 3.5])
@pytest.mark.parametrize(("shape", "lengths"), [("spike", 3), ("ramp", 2), ("soak", 4)])
def test_phases_of_one_load_are_one_stretch_of_whole_seconds(shape: str, lengths: int, seconds: float) -> None:
    (phases,) = SHAPES[shape](ShapeOptions(10.0, 40.0, (), seconds, 1.0))
    assert len(phases) == lengths
    assert sum(phase.seconds for phase in phases) == max(seconds, lengths)
    assert all(phase.seconds >= 1 for phase in phases)
    assert all(phase.seconds == int(phase.seconds) for phase in phases[:-1])
    in_turn = orders(phases, 5, 100.25)
    for before, after in pairwise(in_turn):
        assert after.began_s == before.ends_s and after.start_s == before.start_s + before.phase.seconds


def test_phases_that_stand_for_themselves_are_a_stretch_each() -> None:
    options = ShapeOptions(10.0, 40.0, (1.0, 2.0, 3.0), 15.0, 4.0)
    assert [len(stretch) for stretch in SHAPES["sweep"](options)] == [1, 1, 1]
    assert [len(stretch) for stretch in SHAPES["standard"](options)] == [1, 1, 1, 1]


def test_a_call_counts_in_the_phase_in_which_it_was_due_and_its_answer_when_it_came() -> None:
    samples = Samples()
    spike, after = (Phase(name, number, 5.0, 10.0, 10.0) for number, name in enumerate(("spike", "after")))
    first, second = orders([spike, after], 10, 1000.0)
    count_right(samples, first, "query", due_s=1004.9, ended_s=1007.5, slo_ms=1000.0)
    count_right(samples, second, "query", due_s=1005.0, ended_s=1005.5, slo_ms=1000.0)
    # At its very end, as evenly spaced arrivals can be: still of this phase.
    count_right(samples, first, "query", due_s=1005.0, ended_s=1005.0, slo_ms=1000.0)
    rows = [phase_row(order.phase, order.start_s, samples, ["query"])["total"] for order in (first, second)]
    assert [row["offered"] for row in rows] == [2, 1]
    assert [row["good"] for row in rows] == [1, 1]
    assert rows[0]["p99_ms"] == pytest.approx(2600, rel=0.02)
    assert [row["finished"] for row in rows] == [0, 3], "what the spike left is answered afterwards"


@pytest.fixture
def references(scripted: RunningServer) -> References:
    with polarvec.Client(scripted.target) as client:
        found = References("f")
        found.learn(client, "document", [f"text {number}" for number in range(50)])
        return found


TEXTS = ["text 3", "text 1", "text 40"]


def test_right_vectors_pass(references: References) -> None:
    references.check("document", TEXTS, np.stack([vector(text) for text in TEXTS]) + 0.001)


@pytest.mark.parametrize("damage", ["swapped", "nan", "zero", "missing", "noisy"])
def test_wrong_vectors_are_found(references: References, damage: str) -> None:
    rows = np.stack([vector(text) for text in TEXTS])
    damaged = {
        "swapped": rows[[0, 2, 1]],
        "nan": np.where(np.arange(3)[:, None] == 1, np.nan, rows),
        "zero": rows * np.array([[1], [0], [1]]),
        "missing": rows[:2],
        "noisy": rows + 0.05 * np.sign(rows[::-1]),
    }[damage]
    with pytest.raises(WrongVector):
        references.check("document", TEXTS, damaged)


def test_kept_references_are_taken_only_for_the_same_fingerprint(references: References, tmp_path: Path) -> None:
    references.save(tmp_path / "kept.npz")
    same, other = References("f"), References("g")
    for fresh in (same, other):
        fresh.load(tmp_path / "kept.npz", [("document", "text 3"), ("query", "text 3")])
    assert list(same.vectors) == [("document", "text 3")]
    assert not other.vectors


def test_samples_of_two_processes_add_up_and_survive_the_message() -> None:
    one, two = Samples(), Samples()
    for samples, milliseconds in ((one, 10.0), (two, 1000.0)):
        cell = samples.cell(3, "query")
        cell.counts.update(offered=1, right=1)
        cell.latencies[bucket(milliseconds)] += 1
        samples.errors[0, "query", "UNAVAILABLE"] += 1
        samples.stage(0, "query", "queue_ms", milliseconds)
    merged = Samples()
    for samples in (one, two):
        merged.merge(Samples.from_plain(samples.drain()))
        assert not samples.cells, "what was sent must not be sent again"
    total = merged.between(3, 4)
    assert total.counts["offered"] == 2
    assert percentile(total.latencies, 0.5) == pytest.approx(10, rel=0.01)
    assert percentile(total.latencies, 0.99) == pytest.approx(1000, rel=0.01)
    assert merged.errors[0, "query", "UNAVAILABLE"] == 2
    assert merged.between(4, 5).counts["offered"] == 0


def row(p99_ms: float, *, failure_ratio: float = 0.0, goodput: float = 10.0, wrong: int = 0) -> dict[str, object]:
    return {
        "p50_ms": 1.0,
        "p95_ms": 2.0,
        "p99_ms": p99_ms,
        "failure_ratio": failure_ratio,
        "goodput": goodput,
        "wrong": wrong,
        "right": 10,
    }


def phase(numbers: dict[str, object], *, judged: bool = True) -> dict[str, object]:
    return {"name": "steady", "judged": judged, "total": numbers, "kinds": {"query": numbers}}


@pytest.mark.parametrize(
    ("limits", "numbers", "count"),
    [
        ("query.p99=100", row(99), 0),
        ("query.p99=100", row(101), 1),
        ("p50=1 query.p95=1", row(99), 1),
        ("failures=0.01", row(1, failure_ratio=0.02), 1),
        ("failures=0.01", row(1, failure_ratio=0.01), 0),
        ("query.goodput=11, goodput=10", row(1), 1),
    ],
)
def test_limits_hold_or_break(limits: str, numbers: dict[str, object], count: int) -> None:
    parsed = parse_limits(limits, ["query"])
    assert len(problems_of(phase(numbers), parsed)) == count
    assert len(run_problems([phase(numbers)], parsed)) == count
    assert not run_problems([phase(numbers, judged=False)], parsed)


def row_of_ten(right: int, outcome: str) -> dict[str, object]:
    samples = Samples()
    (order,) = orders([STEADY], 0, 0.0)
    for number in range(10):
        if number < right:
            count_right(samples, order, "query", due_s=float(number), ended_s=number + 0.1, slo_ms=500.0)
        else:
            count_due(samples, order, "query", float(number)).counts[outcome] += 1
    return phase_row(STEADY, 0, samples, ["query"])


@pytest.mark.parametrize("outcome", ["failed", "dropped", "wrong"])
def test_a_call_without_a_right_answer_is_later_than_any_limit(outcome: str) -> None:
    limits = parse_limits("query.p99=500", ["query"])
    mostly, rarely = row_of_ten(1, outcome), row_of_ten(9, outcome)
    assert problems_of(mostly, limits) == ["p99 of query is a call without a right answer"]
    assert problems_of(rarely, limits), "one of ten is more than one of a hundred"
    assert not problems_of(rarely, parse_limits("query.p50=500", ["query"]))
    assert not problems_of(row_of_ten(10, outcome), limits)
    assert mostly["total"]["p99_ms"] is None and rarely["total"]["p50_ms"] == pytest.approx(100, rel=0.02)
    json.dumps([mostly, rarely], allow_nan=False)


def test_a_wrong_vector_fails_a_run_even_where_nothing_is_judged() -> None:
    assert run_problems([phase(row(1, wrong=1), judged=False)], [])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("query.p90=1", "is no limit"),
        ("other.p99=1", "other.p99=1: the workload has no kind other; it has query"),
        ("p99", "is no limit"),
        ("p99=x", "is no limit"),
    ],
)
def test_malformed_limits_are_refused(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=re.escape(said)):
        parse_limits(text, ["query"])


def test_slos_replace_those_of_the_workload() -> None:
    assert parse_slos("query=3", {"query": 1.0, "long": 2.0}) == {"query": 3.0, "long": 2.0}
    with pytest.raises(ValueError, match="no kind"):
        parse_slos("other=3", {"query": 1.0})


@pytest.mark.parametrize("capacity", [3.0, 77.0, 1000.0])
def test_the_search_finds_the_capacity_to_its_precision(capacity: float) -> None:
    search = Search(lambda outcome: ["too slow"] if outcome["rate"] > capacity else [])
    shape = search.phases(ShapeOptions(20.0, 0.0, (), 1.0, 1.0))
    (tried,) = next(shape)
    with pytest.raises(StopIteration):
        while True:
            (tried,) = shape.send([{"rate": tried.rate}])
    assert search.passed <= capacity < search.failed <= 1.1 * search.passed
    assert "too slow" in search.result()["says"]


def served(phase: Phase, process: str, *, capacity: float, delay_s: float) -> dict[str, object]:
    """The row of a phase before a server that takes one call after another, and answers each some time later."""
    samples, free_s = Samples(), 0.0
    (order,) = orders([phase], 0, 0.0)
    for _, due_s in arrivals(phase, process, seed=1):
        free_s = max(free_s, due_s) + 1 / capacity
        count_right(samples, order, "query", due_s=due_s, ended_s=free_s + delay_s, slo_ms=5000.0)
    return phase_row(phase, 0, samples, ["query"])


@pytest.mark.parametrize("process", ["constant", "poisson"])
@pytest.mark.parametrize("slo_ms", [2000.0, 5000.0, 60_000.0])
@pytest.mark.parametrize("delay_s", [0.0, 1.0])
@pytest.mark.parametrize(("capacity", "step_s"), [(20.0, 4.0), (20.0, 20.0), (200.0, 4.0)])
def test_no_slo_is_wide_enough_for_a_queue_that_grows(
    process: str, slo_ms: float, delay_s: float, capacity: float, step_s: float
) -> None:
    """Without the look at the queue 20 calls/s became 47.6 with steps of 4 s and an SLO of 5 s."""
    search = Search(partial(problems_of, limits=search_limits({"query": slo_ms})))
    shape = search.phases(ShapeOptions(capacity / 3, 0.0, (), step_s, step_s))
    (tried,) = next(shape)
    with pytest.raises(StopIteration):
        while True:
            (tried,) = shape.send([served(tried, process, capacity=capacity, delay_s=delay_s)])
    lowest, highest = (0.85, 1.15) if process == "constant" else (0.7, 1.3)
    assert lowest * capacity <= search.passed <= highest * capacity, search.result()


def test_the_search_says_when_it_found_no_end() -> None:
    for problems, words in (([], "went no higher"), (["slow"], "No rate kept the limits")):
        search = Search(lambda outcome, problems=problems: problems)
        shape = search.phases(ShapeOptions(20.0, 0.0, (), 1.0, 1.0, max_rate=50.0))
        (tried,) = next(shape)
        started_s = time.monotonic()
        with pytest.raises(StopIteration):
            while time.monotonic() - started_s < 10:
                (tried,) = shape.send([{"rate": tried.rate}])
        assert words in search.result()["says"]
