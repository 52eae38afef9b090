"""What the worker's tests submit and wait for."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

from polarvec_encoder.batch import PackedBatch
from polarvec_encoder.job import Job

TIMEOUT_S = 10


@dataclass
class Caller:
    """Makes jobs and writes down what comes of them."""

    answers: dict = field(default_factory=dict)
    order: list = field(default_factory=list)
    log: list = field(default_factory=list)
    threads: set = field(default_factory=set)
    hold: dict = field(default_factory=dict)
    """Events that the sending of some answers waits for."""
    ended: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))

    def job(self, name, *texts):
        def end(outcome):
            self.threads.add(threading.get_ident())
            if name in self.hold:
                assert self.hold[name].wait(TIMEOUT_S)
            assert name not in self.answers
            self.answers[name] = outcome
            self.order.append(name)
            self.ended.release()

        return Job(PackedBatch.of_texts(texts), lambda vectors: end(vectors.tolist()), end)

    def wait(self, count):
        for _ in range(count):
            assert self.ended.acquire(timeout=TIMEOUT_S)


def in_thread(function, *arguments):
    thread = threading.Thread(target=function, args=arguments)
    thread.start()
    return thread


def wait_until(condition):
    deadline = threading.Event()
    for _ in range(int(TIMEOUT_S / 0.005)):
        if condition():
            return
        deadline.wait(0.005)
    raise AssertionError("it did not happen in time")
