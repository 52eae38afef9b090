"""The worker answers each pack once, small ones first, and outlives whatever an engine throws."""

import threading

import numpy as np
import pytest
from polarvec_encoder.batch import PackedBatch
from polarvec_encoder.job import Job
from polarvec_encoder.worker import make_worker
from unit.worker_callers import TIMEOUT_S, Caller, in_thread, wait_until


class StepEngine:
    """Gives each text the vector [first id, length]; runs one text a group, each when the test allows it."""

    dimensions = 2
    description = "steps"
    batches_in_flight = 1

    def __init__(self, free=True):
        self.gate = threading.Semaphore(1_000_000 if free else 0)
        self.batches = []
        self.started = threading.Semaphore(0)

    def encode(self, batch):
        self.batches.append(batch.lengths.tolist())
        for text, (start, length) in enumerate(zip(batch.starts, batch.lengths, strict=True)):
            self.started.release()
            assert self.gate.acquire(timeout=TIMEOUT_S)
            if batch.token_ids[start] == 666:
                raise RuntimeError("secret internals")
            yield np.array([text]), np.array([[batch.token_ids[start], length]], np.float32)

    def settle(self):
        pass


@pytest.fixture
def caller():
    return Caller()


@pytest.fixture
def start(caller):
    started = []

    def make(engine):
        worker = make_worker(engine, caller.log.append)
        started.append((worker, engine))
        return worker

    yield make
    for worker, engine in started:
        engine.gate.release(1000)
        worker.close()


def test_every_pack_gets_its_own_vectors(caller, start):
    worker = start(StepEngine())
    worker.submit([caller.job(i, *[[10 * i + k] * (k + 1) for k in range(1 + i % 3)]) for i in range(20)])
    caller.wait(20)
    for i in range(20):
        assert caller.answers[i] == [[10 * i + k, k + 1] for k in range(1 + i % 3)]


def test_small_packs_go_first(caller, start):
    engine = StepEngine()
    start(engine).submit([caller.job("large", [1] * 300), caller.job("small", [2] * 5)])
    caller.wait(2)
    assert caller.order == ["small", "large"]


def test_a_pack_is_answered_before_the_rest_of_its_batch(caller, start):
    engine = StepEngine(free=False)
    start(engine).submit([caller.job("first", [1] * 300), caller.job("second", [2] * 300)])
    engine.gate.release()
    caller.wait(1)
    assert caller.order == ["first"]
    engine.gate.release()
    caller.wait(1)


def run_one(caller, engine, worker):
    """Lets the engine begin with a pack, so that what comes next waits."""
    worker.submit([caller.job("running", [1] * 300)])
    assert engine.started.acquire(timeout=TIMEOUT_S)


def test_a_small_pack_that_waits_overtakes_between_two_groups(caller, start):
    engine = StepEngine(free=False)
    worker = start(engine)
    worker.submit([caller.job("bulk", *[[1] * 300] * 3)])
    assert engine.started.acquire(timeout=TIMEOUT_S)
    held = in_thread(worker.submit, [caller.job("query", [2, 2]), caller.job("more bulk", [3] * 300)])
    wait_until(lambda: len(worker._waiting) == 2)
    engine.gate.release(2)  # one group of bulk, then the query
    caller.wait(1)
    assert caller.order == ["query"]
    engine.gate.release(3)
    caller.wait(2)
    assert caller.order == ["query", "bulk", "more bulk"]
    held.join(TIMEOUT_S)
    assert not held.is_alive()


def test_a_query_that_comes_while_another_overtakes_does_not_wait_for_a_second_group(caller, start):
    engine = StepEngine(free=False)
    worker = start(engine)
    worker.submit([caller.job("bulk", *[[1] * 300] * 3)])
    assert engine.started.acquire(timeout=TIMEOUT_S)
    worker_is_held = in_thread(worker.submit, [caller.job("first", [2, 2])])
    wait_until(lambda: len(worker._waiting) == 1)
    engine.gate.release()
    assert engine.started.acquire(timeout=TIMEOUT_S)  # the first query has begun
    second_is_held = in_thread(worker.submit, [caller.job("second", [3, 3])])
    wait_until(lambda: len(worker._waiting) == 1)
    engine.gate.release(2)
    caller.wait(2)
    assert engine.batches == [[300] * 3, [2], [2]]
    assert caller.order == ["first", "second"]
    engine.gate.release(2)
    caller.wait(1)
    for held in (worker_is_held, second_is_held):
        held.join(TIMEOUT_S)


def test_queries_that_keep_coming_leave_the_others_a_group_now_and_then(caller, start):
    class Flood(StepEngine):
        """Brings another small pack each time that one begins."""

        coming = 40

        def encode(self, batch):
            if batch.lengths.max() <= 200 and self.coming:
                self.coming -= 1
                with worker._changed:
                    worker._waiting.append(caller.job(f"query {self.coming}", [2] * 200))
            yield from super().encode(batch)

    engine = Flood()
    worker = start(engine)
    worker.submit([caller.job("bulk", *[[1] * 300] * 3), caller.job("query", [2] * 200)])
    caller.wait(42)
    # Some six after each of its three groups, not all of them.
    assert caller.order.index("bulk") < 25


def test_packs_that_wait_together_run_as_one_batch(caller, start):
    engine = StepEngine(free=False)
    worker = start(engine)
    run_one(caller, engine, worker)
    for number in range(3):
        worker.submit([caller.job(number, [number] * (301 + number))])
    worker.submit([caller.job(f"small {number}", [number] * 5) for number in range(2)])
    assert engine.batches == [[300]]
    engine.gate.release(6)
    caller.wait(6)
    # The small ones pass while the first batch is still running.
    assert engine.batches == [[300], [5, 5], [301, 302, 303]]
    assert caller.answers["small 1"] == [[1, 5]]
    assert caller.answers[1] == [[1, 302]]


def test_past_the_room_the_next_one_is_held_until_the_worker_takes_what_waits(caller, start):
    engine = StepEngine(free=False)
    worker = start(engine)
    run_one(caller, engine, worker)
    room = worker._room_tokens
    filling = in_thread(worker.submit, [caller.job("fits", [2] * (room - 1))])
    filling.join(TIMEOUT_S)
    assert not filling.is_alive()
    held = in_thread(worker.submit, [caller.job("past the room", [3] * 300)])
    wait_until(lambda: len(worker._waiting) == 2)
    held.join(0.05)
    assert held.is_alive()
    assert engine.batches == [[300]]
    engine.gate.release(1)
    held.join(TIMEOUT_S)
    assert not held.is_alive()
    assert caller.order == ["running"]
    engine.gate.release(2)
    caller.wait(3)
    assert engine.batches[1:] == [[room - 1, 300]]


def test_small_packs_that_come_one_by_one_while_the_engine_is_busy_run_as_one_batch(caller, start):
    engine = StepEngine(free=False)
    worker = start(engine)
    run_one(caller, engine, worker)
    for number in range(4):
        bringing = in_thread(worker.submit, [caller.job(number, [number] * 5)])
        bringing.join(TIMEOUT_S)
        assert not bringing.is_alive()
    engine.gate.release(5)
    caller.wait(5)
    # Passing the running batch.
    assert engine.batches == [[300], [5, 5, 5, 5]]


def test_a_bad_pack_harms_no_other(caller, start):
    engine = StepEngine()
    worker = start(engine)
    worker.submit([caller.job("done", [1] * 300), caller.job("bad", [666] * 301), caller.job("after", [3] * 302)])
    caller.wait(3)
    failed = "the engine failed on this batch"
    assert caller.answers == {"done": [[1, 300]], "bad": failed, "after": [[3, 302]]}
    # What was answered before is not computed again.
    assert engine.batches == [[300, 301, 302], [301], [302]]
    assert "failed on 2 packs, each runs alone now: RuntimeError" in caller.log[0]
    assert "failed on 1 packs: RuntimeError" in caller.log[1]
    assert len(caller.log) == 2
    worker.submit([caller.job("next", [4])])
    caller.wait(1)
    assert caller.answers["next"] == [[4, 1]]


def test_a_bad_pack_that_overtakes_harms_neither_its_company_nor_what_it_overtook(caller, start):
    engine = StepEngine(free=False)
    worker = start(engine)
    worker.submit([caller.job("bulk", *[[1] * 300] * 3)])
    assert engine.started.acquire(timeout=TIMEOUT_S)
    held = in_thread(worker.submit, [caller.job("bad", [666]), caller.job("query", [2, 2])])
    wait_until(lambda: len(worker._waiting) == 2)
    engine.gate.release(100)
    caller.wait(3)
    assert caller.answers == {"bulk": [[1, 300]] * 3, "bad": "the engine failed on this batch", "query": [[2, 2]]}
    assert caller.order == ["bad", "query", "bulk"]
    held.join(TIMEOUT_S)


def test_an_engine_that_always_fails_ends_every_pack_and_not_the_thread(caller, start):
    class Broken(StepEngine):
        broken = True

        def encode(self, batch):
            if self.broken:
                raise MemoryError("secret internals")
            return super().encode(batch)

    engine = Broken()
    worker = start(engine)
    worker.submit([caller.job(number, [number] * 300) for number in range(3)])
    caller.wait(3)
    assert set(caller.answers.values()) == {"the engine failed on this batch"}
    engine.broken = False
    worker.submit([caller.job("next", [4])])
    caller.wait(1)
    assert caller.answers["next"] == [[4, 1]]


def test_an_answer_that_cannot_be_sent_harms_no_other(caller, start):
    def gone(_):
        raise OSError("peer is gone")

    worker = start(StepEngine())
    worker.submit([Job(PackedBatch.of_texts([[1]]), gone, gone), caller.job("other", [2])])
    caller.wait(1)
    assert caller.answers["other"] == [[2, 1]]
    assert "OSError" in caller.log[0]


def test_closing_drains_what_waits_and_refuses_what_comes_later(caller, start):
    engine = StepEngine(free=False)
    worker = start(engine)
    run_one(caller, engine, worker)
    worker.submit([caller.job("waiting", [2] * 300)])
    held = in_thread(worker.submit, [caller.job("held", [3] * worker._room_tokens)])
    wait_until(lambda: len(worker._waiting) == 2)
    closing = in_thread(worker.close)
    closing.join(0.05)
    assert closing.is_alive()
    engine.gate.release(3)
    for thread in (closing, held):
        thread.join(TIMEOUT_S)
        assert not thread.is_alive()
    assert caller.answers == {"running": [[1, 300]], "waiting": [[2, 300]], "held": [[3, worker._room_tokens]]}
    worker.submit([caller.job("late", [3])])
    assert caller.answers["late"] == "the encoder is shutting down"


def test_a_vector_that_is_not_finite_fails_its_pack_only(caller, start):
    """A neighbour that it spoiled runs again, by itself."""

    class Spoiling(StepEngine):
        def encode(self, batch):
            for texts, vectors in super().encode(batch):
                yield texts, vectors * (np.inf if 668 in batch.token_ids else 1)

    engine = Spoiling()
    worker = start(engine)
    worker.submit([caller.job("bad", [668] * 300, [1]), caller.job("spoiled", [3] * 302)])
    caller.wait(2)
    worker.submit([caller.job("next", [4] * 303)])
    caller.wait(1)
    not_finite = "the engine gave a vector that is not finite"
    assert caller.answers == {"bad": not_finite, "spoiled": [[3, 302]], "next": [[4, 303]]}
    assert engine.batches == [[300, 1, 302], [300, 1], [302], [303]]
    assert "each runs alone now" in caller.log[0]
    assert not_finite in caller.log[1]
    assert len(caller.log) == 2


def test_a_text_without_a_vector_is_an_error(caller, start):
    class Forgetful(StepEngine):
        def encode(self, batch):
            yield from list(super().encode(batch))[:-1]

    start(Forgetful()).submit([caller.job("whole", [1] * 300), caller.job("half", [2] * 300, [3])])
    caller.wait(2)
    assert caller.answers == {"whole": [[1, 300]], "half": "the engine failed on this batch"}
    assert "no vector for 1 texts" in caller.log[0]
