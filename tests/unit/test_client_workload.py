"""The check of the load tests: a vector that is not its text's is found."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import polarvec
import pytest
from unit.scripted_server import RunningServer, vector

sys.path.append(str(Path(__file__).parents[2] / "load_tests"))

from workload import References, Workload, WrongVector


@pytest.fixture
def references(scripted: RunningServer) -> References:
    with polarvec.Client(scripted.target) as client:
        return References(client, Workload())


def test_right_vectors_pass(references: References) -> None:
    texts = Workload().documents[:3]
    rows = np.stack([vector(text) for text in texts])
    references.check_documents(texts, rows + 0.001)
    references.check_query(Workload().queries[0], vector(Workload().queries[0]))


@pytest.mark.parametrize("damage", ["swapped", "nan", "zero", "missing", "noisy"])
def test_wrong_vectors_are_found(references: References, damage: str) -> None:
    texts = Workload().documents[:3]
    rows = np.stack([vector(text) for text in texts])
    damaged = {
        "swapped": rows[[0, 2, 1]],
        "nan": np.where(np.arange(3)[:, None] == 1, np.nan, rows),
        "zero": rows * np.array([[1], [0], [1]]),
        "missing": rows[:2],
        "noisy": rows + 0.05 * np.sign(rows[::-1]),
    }[damage]
    with np.errstate(invalid="ignore"), pytest.raises(WrongVector):
        references.check_documents(texts, damaged)


def test_same_seed_gives_the_same_texts() -> None:
    import random

    first, second = random.Random("1 0"), random.Random("1 0")
    workload = Workload()
    for _ in range(20):
        assert workload.query(first) == workload.query(second)
        assert workload.batch(first) == workload.batch(second)
