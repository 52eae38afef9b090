"""The parts of `make bench-rates`: when calls come, what counts as good, and what an open loop does when it is full."""

from __future__ import annotations

import asyncio
import math
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.append(str(Path(__file__).parents[2] / "load_tests" / "peers"))
sys.path.append(str(Path(__file__).parents[2] / "load_tests" / "peers" / "runners"))

from arrivals import TEXTS_A_CALL, WORKLOADS, make_schedule
from goodput import Answer, Stretch
from open_loop import DROPPED, LATE, drive
from quiet import quietest

COUNTS = {"query": 109, "document": 128}
SLO_MS = {"query": 250.0, "document": 2000.0}
QUESTIONS, MIXED = WORKLOADS


def schedule(workload=MIXED, rate=40.0, seconds=30.0, seed=7, process="poisson"):
    return make_schedule(workload, rate, seconds, seed, COUNTS, process)


@pytest.mark.parametrize("process", ["poisson", "constant"])
def test_one_seed_gives_one_schedule(process: str) -> None:
    assert schedule(process=process) == schedule(process=process)
    other = schedule(process=process, seed=8)
    assert [call.places for call in schedule(process=process)] != [call.places for call in other]


def test_a_text_comes_again_only_after_all_others() -> None:
    places = [place for call in schedule(workload=QUESTIONS) for place in call.places]
    assert len(places) > 2 * 109
    assert all(len(set(places[start : start + 109])) == 109 for start in range(len(places) - 109))


def test_calls_are_due_in_order_within_the_stretch_at_the_rate_asked_for() -> None:
    due_s = [call.due_s for call in schedule(rate=40, seconds=30)]
    assert due_s == sorted(due_s) and 0 < due_s[0] and due_s[-1] < 30
    # Four standard deviations of a Poisson count of 1,200.
    assert abs(len(due_s) - 1200) < 4 * math.sqrt(1200)
    gaps = np.diff(due_s)
    # The gaps of a Poisson process deviate by as much as they are long.
    assert 0.8 < gaps.std() / gaps.mean() < 1.2


def test_constant_arrivals_are_equally_far_apart() -> None:
    due_s = [call.due_s for call in schedule(process="constant", rate=8, seconds=2)]
    assert due_s == pytest.approx(np.arange(1, len(due_s) + 1) / 8)
    assert len(due_s) in (15, 16)


def test_a_workload_has_its_share_of_documents_and_no_text_twice_in_a_call() -> None:
    assert {call.kind for call in schedule(QUESTIONS)} == {"query"}
    calls = schedule(MIXED)
    documents = [call for call in calls if call.kind == "document"]
    assert 0.06 < len(documents) / len(calls) < 0.14
    for call in calls:
        assert len(set(call.places)) == TEXTS_A_CALL[call.kind] == len(call.places)
        assert all(0 <= place < COUNTS[call.kind] for place in call.places)


def answer(latency_ms: float | None = 10.0, problem: str = "", kind="query", tokens: int = 10) -> Answer:
    return Answer(kind, tokens, latency_ms, problem)


def test_goodput_counts_right_answers_within_the_objective_of_their_kind() -> None:
    answers = [
        answer(250.0),
        answer(251.0),
        answer(1999.0, kind="document"),
        answer(2001.0, kind="document"),
        answer(10.0, "wrong vectors"),
        answer(None, DROPPED),
    ]
    stretch = Stretch(seconds=4.0, answers=answers)
    assert stretch.good_count(SLO_MS) == 2
    assert stretch.goodput(SLO_MS) == 0.5
    assert stretch.offered == 1.5
    assert stretch.failures == {"wrong vectors": 1, DROPPED: 1}


def test_percentiles_count_calls_that_never_had_an_answer() -> None:
    stretch = Stretch(1.0, [answer(float(ms)) for ms in range(1, 100)] + [answer(None, LATE)])
    assert stretch.percentile_ms(50, "query") == 50
    assert stretch.percentile_ms(99, "query") == 99
    stretch.answers.append(answer(1.0, "wrong vectors"))
    assert stretch.percentile_ms(99, "query") == math.inf
    assert stretch.percentile_ms(99, "document") is None


def test_cost_is_for_the_tokens_that_were_answered_rightly() -> None:
    answers = [answer(tokens=400), answer(tokens=600, kind="document"), answer(1.0, "wrong vectors", tokens=5000)]
    stretch = Stretch(1.0, answers, server_cpu_s=0.3, generator_cpu_s=0.02)
    assert stretch.cpu_s_per_mtok == pytest.approx(300)
    assert stretch.generator_cpu_s_per_mtok == pytest.approx(20)
    assert Stretch(1.0, [answer(None, DROPPED)], server_cpu_s=1.0).cpu_s_per_mtok is None


@pytest.mark.parametrize(
    ("answers", "failed"),
    [
        ([answer()] * 95 + [answer(None, DROPPED)] * 5, False),
        ([answer()] * 94 + [answer(None, DROPPED)] * 6, True),
        ([answer(4999.0)] * 100, False),
        ([answer(5001.0)] * 100, True),
        ([answer()] * 100 + [answer(5001.0, kind="document")], True),
        ([answer()] * 99 + [answer(6000.0)], False),
    ],
    ids=["5 % bad", "6 % bad", "slow", "too slow", "one slow kind", "one slow call"],
)
def test_a_contestant_fails_by_its_p99_or_by_its_bad_answers(answers: list[Answer], failed: bool) -> None:
    assert Stretch(1.0, answers).failed is failed


def test_rounds_are_added_up() -> None:
    stretch = Stretch(2.0, [answer()], 1.0, 0.1, 0.02)
    stretch.add(Stretch(2.0, [answer(), answer(None, LATE)], 2.0, 0.2, 0.01))
    assert (stretch.seconds, len(stretch.answers), stretch.server_cpu_s, stretch.others) == (4.0, 3, 3.0, 0.02)


@pytest.mark.parametrize(
    ("noises", "taken", "kept"),
    [([0.02, 0.0], 1, 0.02), ([0.5, 0.02, 0.0], 2, 0.02), ([0.5, 0.2, 0.3, 0.0], 3, 0.2)],
    ids=["quiet", "quiet the second time", "never quiet"],
)
def test_a_noisy_stretch_is_taken_again_and_the_quietest_counts(noises: list[float], taken: int, kept: float) -> None:
    steps: list[str] = []

    def take() -> Stretch:
        steps.append("take")
        return Stretch(1.0, [answer()], others=noises[steps.count("take") - 1])

    assert quietest(take, 0.1, lambda: steps.append("wait")).others == kept
    # Again only after a wait.
    assert steps == ["take", "wait"] * (taken - 1) + ["take"]


class RefusedError(Exception):
    pass


async def run(call, due_s, max_open: int = 100, timeout_s: float = 30.0):
    return await drive(due_s, call, max_open=max_open, timeout_s=timeout_s, expected_errors=(RefusedError,))


async def test_a_call_that_is_due_while_too_many_are_open_is_dropped_and_never_sent() -> None:
    sent: list[int] = []
    released = asyncio.Event()

    async def call(number: int) -> np.ndarray:
        sent.append(number)
        if len(sent) == 3:
            asyncio.get_running_loop().call_later(0.2, released.set)
        await released.wait()
        return np.zeros((1, 2))

    outcomes = await run(call, [0.0] * 8, max_open=3)
    assert sent == [0, 1, 2]
    assert [outcome.problem for outcome in outcomes] == [""] * 3 + [DROPPED] * 5
    assert all(outcome.latency_ms is None for outcome in outcomes[3:])


async def test_latency_counts_from_when_a_call_was_due_though_the_loop_was_busy() -> None:
    import time

    async def call(number: int) -> np.ndarray:
        if number == 0:
            time.sleep(0.3)  # The event loop stands still meanwhile, as it does under load.
        return np.zeros((1, 2))

    outcomes = await run(call, [0.0, 0.05])
    assert outcomes[1].latency_ms is not None and outcomes[1].latency_ms >= 250


async def test_calls_do_not_wait_for_earlier_ones() -> None:
    order: list[str] = []
    second = asyncio.Event()

    async def call(number: int) -> np.ndarray:
        if number == 0:
            await second.wait()
        else:
            second.set()
        order.append(f"{number} ended")
        return np.zeros((1, 2))

    outcomes = await run(call, [0.0, 0.01])
    assert order == ["1 ended", "0 ended"]
    assert [outcome.problem for outcome in outcomes] == ["", ""]


async def test_refusals_and_silence_are_told_apart_and_other_errors_end_the_run() -> None:
    async def call(number: int) -> np.ndarray:
        if number == 0:
            raise RefusedError
        await asyncio.Event().wait()
        raise AssertionError

    outcomes = await run(call, [0.0, 0.0], timeout_s=0.2)
    assert [outcome.problem for outcome in outcomes] == ["RefusedError", LATE]

    async def broken(number: int) -> np.ndarray:
        if number == 0:
            raise ZeroDivisionError
        return np.zeros((1, 2))

    # Though it ended before the last call was due.
    with pytest.raises(ZeroDivisionError):
        await run(broken, [0.0, 0.1])
