"""With an engine that computes elsewhere: two batches under way, one thread starts them, another one answers."""

import threading

import numpy as np
import pytest
from polarvec_encoder.worker import make_worker
from unit.worker_callers import TIMEOUT_S, Caller, in_thread, wait_until


class RemoteEngine:
    """Starts a batch when it is called, and yields one text a group, each when the test allows it.

    A text's vector is [first id, length]. A batch that holds the id 666 fails while it is iterated, 667 at its
    start; 668 makes the vectors of its batch NaN from there on.
    """

    dimensions = 2
    description = "remote"
    batches_in_flight = 2

    def __init__(self):
        self.batches = []
        self.gates = []
        self.iterated = []
        self.launching_threads, self.waiting_threads = set(), set()
        self.changed = threading.Condition()
        self.open = False

    def encode(self, batch):
        with self.changed:
            self.launching_threads.add(threading.get_ident())
            assert len(self.batches) - len(self.iterated) < self.batches_in_flight
            self.batches.append(batch.lengths.tolist())
            self.gates.append(threading.Semaphore(1_000_000 if self.open else 0))
            number = len(self.batches) - 1
        if 667 in batch.token_ids:
            self.iterated.append(number)
            raise RuntimeError("secret internals of a start")
        return self._groups(number, batch)

    def _groups(self, number, batch):
        self.waiting_threads.add(threading.get_ident())
        try:
            for text, (start, length) in enumerate(zip(batch.starts, batch.lengths, strict=True)):
                assert self.gates[number].acquire(timeout=TIMEOUT_S)
                if batch.token_ids[start] == 666:
                    raise RuntimeError("secret internals")
                vector = np.array([[batch.token_ids[start], length]], np.float32)
                yield np.array([text]), vector * (np.nan if 668 in batch.token_ids[: start + 1] else 1)
        finally:
            with self.changed:
                self.iterated.append(number)

    def settle(self):
        pass

    def release(self, number, groups=1):
        wait_until(lambda: len(self.gates) > number)
        self.gates[number].release(groups)

    def release_all(self):
        with self.changed:
            self.open = True
            for gate in self.gates:
                gate.release(1000)


@pytest.fixture
def caller():
    return Caller()


@pytest.fixture
def engine():
    return RemoteEngine()


@pytest.fixture
def worker(engine, caller):
    worker = make_worker(engine, caller.log.append)
    yield worker
    engine.release_all()
    worker.close()


def started(engine, count):
    wait_until(lambda: len(engine.batches) >= count)


@pytest.fixture
def fill(engine, worker, caller):
    """Takes both places, so that what comes next waits: packs `first` of 300 tokens and `second` of 301."""

    def fill():
        for number, name in enumerate(("first", "second")):
            worker.submit([caller.job(name, [number + 1] * (300 + number))])
            started(engine, number + 1)

    return fill


def test_two_batches_are_under_way_at_once_and_no_third(engine, worker, caller, fill):
    fill()
    worker.submit([caller.job("third", [3] * 302)])
    wait_until(lambda: worker._free._value == 0)
    threading.Event().wait(0.05)
    assert engine.batches == [[300], [301]]
    assert caller.answers == {}
    engine.release(0)
    started(engine, 3)
    assert engine.batches[2] == [302]
    engine.release_all()
    caller.wait(3)
    assert caller.answers == {"first": [[1, 300]], "second": [[2, 301]], "third": [[3, 302]]}
    assert caller.order == ["first", "second", "third"]


def test_packs_that_wait_together_run_as_one_batch(engine, worker, caller, fill):
    fill()
    for number in range(3):
        worker.submit([caller.job(number, [number] * (310 + number))])
    engine.release(0)
    started(engine, 3)
    assert engine.batches[2] == [310, 311, 312]
    engine.release_all()
    caller.wait(5)
    assert caller.order == ["first", "second", 0, 1, 2]


def test_past_the_room_the_next_one_is_held_until_the_worker_takes_what_waits(engine, worker, caller, fill):
    fill()
    room = worker._room_tokens
    filling = in_thread(worker.submit, [caller.job("fits", [3] * (room - 1))])
    filling.join(TIMEOUT_S)
    assert not filling.is_alive()
    held = in_thread(worker.submit, [caller.job("past the room", [4] * 300)])
    wait_until(lambda: len(worker._waiting) == 2)
    held.join(0.05)
    assert held.is_alive()
    assert engine.batches == [[300], [301]]
    engine.release(0)
    held.join(TIMEOUT_S)
    assert not held.is_alive()
    started(engine, 3)
    assert engine.batches[2] == [room - 1, 300]
    engine.release_all()
    caller.wait(4)
    assert caller.order == ["first", "second", "fits", "past the room"]


def test_every_pack_gets_its_own_vectors_once(engine, worker, caller):
    engine.release_all()
    threads = [
        in_thread(
            worker.submit,
            [caller.job((b, i), *[[100 * b + i] * (5 * i + k + 1) for k in range(1 + i % 3)]) for i in range(60)],
        )
        for b in range(6)
    ]
    # Caller.job asserts that nothing ends twice.
    caller.wait(360)
    for thread in threads:
        thread.join(TIMEOUT_S)
    for (b, i), vectors in caller.answers.items():
        assert vectors == [[100 * b + i, 5 * i + k + 1] for k in range(1 + i % 3)]
    assert caller.log == []


def test_small_packs_are_started_before_the_rest_of_their_batch(engine, worker, caller):
    jobs = [caller.job("large", [1] * 300), caller.job("small", [2] * 5), caller.job("large too", [3] * 301)]
    worker.submit(jobs)
    started(engine, 2)
    assert engine.batches == [[5], [300, 301]]
    engine.release(0)
    caller.wait(1)
    assert caller.order == ["small"]


def test_small_packs_that_wait_take_the_next_free_place(engine, worker, caller, fill):
    fill()
    held = in_thread(worker.submit, [caller.job("bulk", [3] * 302), caller.job("query", [4] * 4)])
    wait_until(lambda: len(worker._waiting) == 2)
    engine.release(0)
    started(engine, 3)
    assert engine.batches[2] == [4]
    held.join(TIMEOUT_S)
    assert not held.is_alive()
    engine.release(1)
    started(engine, 4)
    assert engine.batches[3] == [302]


def test_small_packs_that_keep_coming_do_not_starve_the_rest(engine, worker, caller, fill):
    fill()
    worker.submit([caller.job("bulk", [3] * 302)])
    for number in range(3):
        held = in_thread(worker.submit, [caller.job(number, [4] * 4)])
        wait_until(lambda: any(job.small for job in worker._waiting))
        engine.release(number)
        started(engine, number + 3)
        held.join(TIMEOUT_S)
    assert engine.batches[2:5] == [[4], [302, 4], [4]]


def test_a_pack_is_answered_before_the_rest_of_its_batch(engine, worker, caller):
    worker.submit([caller.job("first", [1] * 300), caller.job("second", [2] * 300)])
    engine.release(0)
    caller.wait(1)
    assert caller.order == ["first"]
    assert engine.iterated == []


def test_answers_are_sent_from_another_thread_than_the_one_that_starts(engine, worker, caller):
    engine.release_all()
    worker.submit([caller.job("a", [1] * 300)])
    caller.wait(1)
    assert caller.threads.isdisjoint(engine.launching_threads)
    assert caller.threads == engine.waiting_threads


def test_a_slow_answer_does_not_hold_up_the_next_start(engine, worker, caller, fill):
    sending = threading.Event()
    caller.hold = {"first": sending}
    fill()
    engine.release(0)
    # Its answer is being sent, and still its place is free.
    worker.submit([caller.job("third", [3] * 300)])
    started(engine, 3)
    assert caller.answers == {}
    sending.set()
    caller.wait(1)
    assert caller.order == ["first"]


@pytest.mark.parametrize(("mark", "where"), [(666, "waiting"), (667, "start")])
def test_a_batch_that_fails_harms_no_other(engine, worker, caller, mark, where):
    worker.submit([caller.job("before", [1] * 300)])
    started(engine, 1)
    worker.submit([caller.job("done", [2] * 300), caller.job("bad", [mark] * 301), caller.job("last", [3] * 302)])
    started(engine, 2)
    engine.release_all()
    caller.wait(4)
    worker.submit([caller.job("after", [4] * 303)])
    worker.submit([caller.job("and after", [5] * 304)])
    worker.submit([caller.job("and once more", [6] * 305)])
    caller.wait(3)
    assert caller.answers == {
        "before": [[1, 300]],
        "done": [[2, 300]],
        "bad": "the engine failed on this batch",
        "last": [[3, 302]],
        "after": [[4, 303]],
        "and after": [[5, 304]],
        "and once more": [[6, 305]],
    }
    # Each runs once more at most, and what was answered before does not.
    assert engine.batches.count([300]) == (1 if where == "waiting" else 2)
    assert engine.batches.count([301]) == engine.batches.count([302]) == 1
    assert engine.launching_threads.isdisjoint(engine.waiting_threads)
    together = 2 if where == "waiting" else 3
    assert f"failed on {together} packs, each runs alone now: RuntimeError" in caller.log[0]
    assert "failed on 1 packs: RuntimeError" in caller.log[1]
    assert len(caller.log) == 2


def test_a_vector_that_is_not_finite_fails_its_pack_only(engine, worker, caller):
    """In the same batch it may spoil the vectors of others."""
    engine.release_all()
    held = in_thread(
        worker.submit, [caller.job("canary", [1] * 4), caller.job("bad", [668]), caller.job("spoiled", [3] * 6)]
    )
    caller.wait(3)
    held.join(TIMEOUT_S)
    assert caller.answers == {
        "canary": [[1, 4]],
        "bad": "the engine gave a vector that is not finite",
        "spoiled": [[3, 6]],
    }
    assert engine.batches == [[4, 1, 6], [1], [6]]


def test_small_packs_pass_between_those_that_run_alone(engine, worker, caller, fill):
    fill()
    worker.submit([caller.job(name, [mark] * 302) for name, mark in (("a", 3), ("bad", 667), ("b", 4))])
    engine.release(0)
    started(engine, 4)  # all three, which fail at their start, and a alone
    held = in_thread(worker.submit, [caller.job("query", [5] * 4)])
    wait_until(lambda: worker._waiting)
    engine.release(1)
    started(engine, 5)
    engine.release_all()
    caller.wait(6)
    held.join(TIMEOUT_S)
    assert engine.batches == [[300], [301], [302, 302, 302], [302], [4], [302], [302]]
    assert caller.answers.pop("bad") == "the engine failed on this batch"
    assert caller.answers == {
        "first": [[1, 300]],
        "second": [[2, 301]],
        "a": [[3, 302]],
        "query": [[5, 4]],
        "b": [[4, 302]],
    }


@pytest.mark.parametrize("mark", [666, 667])
def test_closing_waits_for_packs_that_run_alone(engine, worker, caller, fill, mark):
    fill()
    worker.submit([caller.job(name, [number] * 302) for name, number in (("bad", mark), ("good", 3))])
    closing = in_thread(worker.close)
    engine.release_all()
    closing.join(TIMEOUT_S)
    assert not closing.is_alive()
    assert caller.answers["bad"] == "the engine failed on this batch"
    assert caller.answers["good"] == [[3, 302]]


def test_an_answer_that_cannot_be_sent_harms_no_other(engine, worker, caller):
    engine.release_all()
    gone = caller.job("gone", [1])

    def cannot(_):
        raise OSError("peer is gone")

    gone.answer = cannot
    worker.submit([gone, caller.job("other", [2])])
    caller.wait(1)
    assert caller.answers == {"other": [[2, 1]]}
    assert "OSError" in caller.log[0]


def test_closing_drains_what_is_under_way_and_what_waits(engine, worker, caller, fill):
    fill()
    worker.submit([caller.job("waiting", [3] * 302)])
    held = in_thread(worker.submit, [caller.job("query", [4]), caller.job("held", [5] * worker._room_tokens)])
    wait_until(lambda: len(worker._waiting) == 3)
    closing = in_thread(worker.close)
    closing.join(0.05)
    assert closing.is_alive()
    engine.release_all()
    for thread in (closing, held):
        thread.join(TIMEOUT_S)
        assert not thread.is_alive()
    assert caller.answers == {
        "first": [[1, 300]],
        "second": [[2, 301]],
        "waiting": [[3, 302]],
        "query": [[4, 1]],
        "held": [[5, worker._room_tokens]],
    }
    worker.submit([caller.job("late", [3])])
    assert caller.answers["late"] == "the encoder is shutting down"
