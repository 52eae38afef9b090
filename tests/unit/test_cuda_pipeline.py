"""Passes start as slots become free, and any reader keeps the others moving."""

import threading

import numpy as np
import pytest
import torch
from polarvec_encoder.cuda.pipeline import Pass, Pipeline
from polarvec_encoder.cuda.slots import Slot

LARGE, SMALL = 512, 128


class ScriptedRunner:
    """Ends a pass when it is waited for, or when the test says so; its vectors are the pass's first integer."""

    def __init__(self, gated=False):
        self.slots = tuple(Slot(LARGE, 4, torch.device("cpu")) for _ in range(2))
        self.buffer_bytes = 0
        self.started, self.failing_start, self.failing_wait = [], set(), set()
        self._under_way, self._ended = {}, {None}
        self._gates = {} if gated else None

    def gate(self, name):
        return self._gates.setdefault(name, threading.Event())

    def start(self, slot, tokens, inputs, texts):
        name = int(inputs[0])
        assert self._under_way.get(id(slot)) in self._ended, "the slot is taken"
        self.started.append(name)
        if name in self.failing_start:
            raise RuntimeError("out of memory")
        self._under_way[id(slot)] = name
        slot.host_vectors.fill_(name)

    def wait(self, slot):
        name = self._under_way[id(slot)]
        if self._gates is not None:
            assert self.gate(name).wait(10)
        self._ended.add(name)
        if name in self.failing_wait:
            raise RuntimeError("the device failed")


def make_pass(name, tokens=LARGE):
    return Pass(0, 1, tokens, np.array([name], np.int32))


def value(pipeline, one):
    return float(pipeline.vectors_of(one)[0, 0])


def test_at_most_two_passes_are_under_way():
    runner = ScriptedRunner()
    pipeline = Pipeline(runner)
    passes = [make_pass(name) for name in range(5)]
    pipeline.submit(passes)
    assert runner.started == [0, 1]
    assert value(pipeline, passes[0]) == 0
    assert runner.started == [0, 1, 2]
    assert [value(pipeline, one) for one in passes[1:]] == [1, 2, 3, 4]


def test_a_batch_can_be_read_while_an_earlier_one_is_left_half_read():
    pipeline = Pipeline(ScriptedRunner())
    first, second = [make_pass(name) for name in range(4)], [make_pass(name) for name in (10, 11)]
    pipeline.submit(first)
    assert value(pipeline, first[0]) == 0
    pipeline.submit(second)
    assert [value(pipeline, one) for one in second] == [10, 11]
    assert [value(pipeline, one) for one in first[1:]] == [1, 2, 3]


def test_vectors_outlive_their_slot():
    pipeline = Pipeline(ScriptedRunner())
    passes = [make_pass(name) for name in range(6)]
    pipeline.submit(passes)
    kept = [pipeline.vectors_of(one) for one in passes]
    assert [float(vectors[0, 0]) for vectors in kept] == list(range(6))


def test_a_small_pass_goes_before_large_ones_that_have_not_started():
    runner = ScriptedRunner()
    pipeline = Pipeline(runner)
    large, query = [make_pass(name) for name in range(4)], make_pass(9, SMALL)
    pipeline.submit(large)
    pipeline.submit([query])
    assert value(pipeline, query) == 9
    assert runner.started[:3] == [0, 1, 9]
    assert value(pipeline, large[3]) == 3


@pytest.mark.parametrize("moment", ["start", "wait"])
def test_a_pass_that_fails_fails_alone(moment):
    runner = ScriptedRunner()
    getattr(runner, f"failing_{moment}").add(1)
    pipeline = Pipeline(runner)
    passes = [make_pass(name) for name in range(4)]
    pipeline.submit(passes)
    assert value(pipeline, passes[0]) == 0
    for _ in range(2):
        with pytest.raises(RuntimeError):
            pipeline.vectors_of(passes[1])
    assert [value(pipeline, one) for one in passes[2:]] == [2, 3]


def test_what_is_abandoned_does_not_start_and_blocks_nobody():
    runner = ScriptedRunner()
    pipeline = Pipeline(runner)
    left, read = [make_pass(name) for name in range(4)], [make_pass(name) for name in (10, 11, 12)]
    pipeline.submit(left)
    pipeline.abandon(left)
    pipeline.submit(read)
    assert [value(pipeline, one) for one in read] == [10, 11, 12]
    assert runner.started == [0, 1, 10, 11, 12]


def test_passes_are_submitted_while_another_thread_waits():
    runner = ScriptedRunner(gated=True)
    pipeline = Pipeline(runner)
    first, second = make_pass(1), make_pass(2)
    pipeline.submit([first])
    found = []
    reader = threading.Thread(target=lambda: found.append(value(pipeline, first)))
    reader.start()
    pipeline.submit([second])
    assert runner.started == [1, 2]
    runner.gate(1).set()
    reader.join(10)
    runner.gate(2).set()
    assert found == [1] and value(pipeline, second) == 2


def test_many_threads_read_what_is_theirs():
    pipeline = Pipeline(ScriptedRunner())
    wrong = []

    def reader(thread):
        for turn in range(50):
            passes = [make_pass(1000 * thread + 10 * turn + place) for place in range(3)]
            with lock:
                pipeline.submit(passes)
            wrong.extend(one for one in passes if value(pipeline, one) != one.inputs[0])

    lock = threading.Lock()
    threads = [threading.Thread(target=reader, args=(place,)) for place in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert not wrong and not any(thread.is_alive() for thread in threads)
