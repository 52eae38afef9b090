"""The worker answers each pack once, small ones first, and outlives whatever an engine throws."""

import threading
from dataclasses import dataclass, field

import numpy as np
import pytest
from polarvec_encoder.batch import PackedBatch
from polarvec_encoder.worker import Job, Worker

TIMEOUT_S = 10


class StepEngine:
    """Gives each text the vector [first id, length]; runs one text a group, each when the test allows it."""

    dimensions = 2
    description = "steps"

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


@dataclass
class Caller:
    """Makes jobs and writes down what comes of them."""

    answers: dict = field(default_factory=dict)
    order: list = field(default_factory=list)
    log: list = field(default_factory=list)
    ended: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))

    def job(self, name, *texts):
        def end(outcome):
            assert name not in self.answers
            self.answers[name] = outcome
            self.order.append(name)
            self.ended.release()

        return Job(PackedBatch.of_texts(texts), lambda vectors: end(vectors.tolist()), end)

    def wait(self, count):
        for _ in range(count):
            assert self.ended.acquire(timeout=TIMEOUT_S)


@pytest.fixture
def caller():
    return Caller()


@pytest.fixture
def start(caller):
    started = []

    def make(engine):
        worker = Worker(engine, caller.log.append)
        started.append((worker, engine))
        return worker

    yield make
    for worker, engine in started:
        engine.gate.release(1000)
        worker.close()


def in_thread(function, *arguments):
    thread = threading.Thread(target=function, args=arguments)
    thread.start()
    return thread


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


def test_a_small_pack_of_the_waiting_batch_overtakes(caller, start):
    engine = StepEngine(free=False)
    worker = start(engine)
    worker.submit([caller.job("bulk", *[[1] * 300] * 3)])
    assert engine.started.acquire(timeout=TIMEOUT_S)
    submitting = in_thread(worker.submit, [caller.job("query", [2, 2]), caller.job("more bulk", [3] * 300)])
    wait_until(lambda: worker._waiting)
    engine.gate.release(2)  # one group of bulk, then the query
    caller.wait(1)
    assert caller.order == ["query"]
    engine.gate.release(3)
    caller.wait(2)
    assert caller.order == ["query", "bulk", "more bulk"]
    submitting.join(TIMEOUT_S)


def test_a_second_waiting_batch_is_held_back(caller, start):
    engine = StepEngine(free=False)
    worker = start(engine)
    worker.submit([caller.job("running", [1] * 300)])
    assert engine.started.acquire(timeout=TIMEOUT_S)
    second = in_thread(worker.submit, [caller.job("waiting", [2] * 300)])
    wait_until(lambda: worker._waiting)
    third = in_thread(worker.submit, [caller.job("held", [3] * 300)])
    third.join(0.05)
    assert second.is_alive()
    assert third.is_alive()
    assert [job.pack.token_ids[0] for job in worker._waiting] == [2]
    engine.gate.release(3)
    for thread in (second, third):
        thread.join(TIMEOUT_S)
        assert not thread.is_alive()
    caller.wait(3)
    assert caller.order == ["running", "waiting", "held"]


def test_an_engine_that_throws_fails_its_batch_only(caller, start):
    worker = start(StepEngine())
    worker.submit([caller.job("done", [1] * 300), caller.job("bad", [666] * 300), caller.job("after", [3] * 300)])
    caller.wait(3)
    assert caller.answers["done"] == [[1, 300]]
    assert caller.answers["bad"] == caller.answers["after"] == "the engine failed on this batch"
    assert "RuntimeError" in caller.log[0]
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


def test_closing_answers_what_was_taken_and_refuses_what_comes_later(caller, start):
    engine = StepEngine(free=False)
    worker = start(engine)
    worker.submit([caller.job("running", [1] * 300)])
    assert engine.started.acquire(timeout=TIMEOUT_S)
    waiting = in_thread(worker.submit, [caller.job("waiting", [2] * 300)])
    wait_until(lambda: worker._waiting)
    closing = in_thread(worker.close)
    engine.gate.release(2)
    closing.join(TIMEOUT_S)
    waiting.join(TIMEOUT_S)
    assert caller.answers == {"running": [[1, 300]], "waiting": [[2, 300]]}
    worker.submit([caller.job("late", [3])])
    assert caller.answers["late"] == "the encoder is shutting down"


def wait_until(condition):
    deadline = threading.Event()
    for _ in range(int(TIMEOUT_S / 0.005)):
        if condition():
            return
        deadline.wait(0.005)
    raise AssertionError("it did not happen in time")
