"""One computation for equal texts in flight: whose, for whom, and what happens when it fails."""

import asyncio
import time

import numpy as np
import pytest
from polarvec_server.errors import DeadlineExceeded, EncoderUnavailable, InternalError, NonFinite
from polarvec_server.pipeline.repeats import Call, Repeats
from polarvec_server.pipeline.values import Priority, Timings, Tokenized
from polarvec_server.pipeline.vector_cache import VectorCache

BULK, INTERACTIVE = Priority.BULK, Priority.INTERACTIVE
PACK_TOKENS = 1000


def tokenized(names, tokens):
    offsets = np.arange(len(names) + 1, dtype=np.int64) * tokens
    return Tokenized(np.repeat(np.array(names, np.int32), tokens), offsets, np.full(len(names), tokens, np.int64))


class GatedCompute:
    """Stands for packing and dispatch: each computation waits until the test ends it."""

    def __init__(self):
        self.started, self._gates = [], []

    async def __call__(self, tokenized, priority, deadline, timings):
        names = tokenized.token_ids[tokenized.offsets[:-1]]
        self.started.append(names.tolist())
        gate = asyncio.get_running_loop().create_future()
        self._gates.append(gate)
        try:
            async with asyncio.timeout(None if deadline is None else deadline - time.monotonic()):
                error = await gate
        except TimeoutError:
            raise DeadlineExceeded from None
        if error:
            raise error
        timings.queue_ms, timings.inference_ms = 3.0, 5.0
        return np.stack([np.full(4, name + 0.5, np.float32) for name in names])

    async def end(self, index, error=None):
        self._gates[index].set_result(error)
        await settle()


async def settle():
    for _ in range(10):
        await asyncio.sleep(0)


class Stage:
    """The stage, and calls to it."""

    def __init__(self, known=None):
        self.compute = GatedCompute()
        self.repeats = Repeats(self.compute, 4, PACK_TOKENS, known)
        self.settled, self.timings = [], []

    async def call(self, *names, priority=BULK, deadline=None, tokens=10):
        timings, settled = Timings(), []
        self.timings.append(timings)
        self.settled.append(settled)
        call = Call(priority, deadline, timings, settled.append)
        task = asyncio.create_task(self.repeats.embed(tokenized(names, tokens), call))
        await settle()
        return task

    def check_empty(self):
        assert not self.repeats._flights


@pytest.fixture
def stage():
    return Stage()


def names_of(vectors):
    assert (vectors == vectors[:, :1]).all()
    return (vectors[:, 0] - 0.5).tolist()


async def test_equal_calls_share_one_computation(stage):
    calls = [await stage.call(7) for _ in range(20)]
    assert stage.compute.started == [[7]]
    await stage.compute.end(0)
    answers = await asyncio.gather(*calls)
    assert {answer.tobytes() for answer in answers} == {np.full(4, 7.5, np.float32).tobytes()}
    assert stage.repeats.counts.in_flight == 19
    # The engine's budget is charged once.
    assert stage.settled == [[10]] + [[0]] * 19
    stage.check_empty()


async def test_only_what_is_not_on_its_way_is_computed(stage):
    first = await stage.call(1, 2, 3)
    second = await stage.call(4, 3, 4, 1, 5)
    assert stage.compute.started == [[1, 2, 3], [4, 5]]
    await stage.compute.end(1)
    assert not second.done()
    third = await stage.call(3)
    await stage.compute.end(0)
    assert names_of(await first) == [1, 2, 3]
    assert names_of(await second) == [4, 3, 4, 1, 5]
    assert names_of(await third) == [3]
    assert (stage.repeats.counts.call, stage.repeats.counts.in_flight) == (1, 3)
    stage.check_empty()


async def test_calls_that_wait_for_each_other_both_end(stage):
    blocking = await stage.call(3)
    first = await stage.call(1, 3)
    second = await stage.call(3, 1)
    assert stage.compute.started == [[3], [1]]
    await stage.compute.end(1)
    await stage.compute.end(0)
    assert names_of(await first) == [1, 3] and names_of(await second) == [3, 1] and names_of(await blocking) == [3]


async def test_a_text_after_the_answer_is_computed_anew(stage):
    for index in range(2):
        call = await stage.call(7)
        await stage.compute.end(index)
        await call
    assert stage.compute.started == [[7], [7]]


async def test_followers_of_a_cancelled_leader_get_a_new_one(stage):
    leader = await stage.call(7)
    followers = [await stage.call(7) for _ in range(10)]
    leader.cancel()
    await settle()
    # One of them, not ten.
    assert stage.compute.started == [[7], [7]]
    await stage.compute.end(1)
    assert [names_of(answer) for answer in await asyncio.gather(*followers)] == [[7]] * 10
    assert leader.cancelled()
    stage.check_empty()


async def test_a_cancelled_follower_disturbs_nobody(stage):
    leader, gone, other = [await stage.call(7) for _ in range(3)]
    gone.cancel()
    await settle()
    assert gone.cancelled()
    await stage.compute.end(0)
    assert names_of(await leader) == names_of(await other) == [7]


async def test_a_leader_out_of_time_fails_alone(stage):
    leader = await stage.call(7, deadline=time.monotonic() + 0.05)
    followers = [await stage.call(7) for _ in range(3)]
    with pytest.raises(DeadlineExceeded):
        await leader
    await settle()
    assert len(stage.compute.started) == 2
    await stage.compute.end(1)
    assert [names_of(answer) for answer in await asyncio.gather(*followers)] == [[7]] * 3


async def test_a_follower_keeps_its_own_deadline(stage):
    leader = await stage.call(7)
    follower = await stage.call(7, deadline=time.monotonic() + 0.05)
    with pytest.raises(DeadlineExceeded):
        await follower
    assert not leader.done()
    await stage.compute.end(0)
    assert names_of(await leader) == [7]


async def test_a_follower_is_not_told_of_a_fault_in_a_text_that_is_not_its_own(stage):
    leader, follower = await stage.call(7, 8), await stage.call(7)
    await stage.compute.end(0, NonFinite())
    with pytest.raises(NonFinite):
        await leader
    assert stage.compute.started == [[7, 8], [7]]
    await stage.compute.end(1)
    assert names_of(await follower) == [7]


@pytest.mark.parametrize("fault", [NonFinite(), InternalError(), EncoderUnavailable(), KeyError("a bug")], ids=repr)
async def test_a_fault_of_the_moment_costs_one_more_computation(stage, fault):
    leader = await stage.call(7)
    followers = [await stage.call(7) for _ in range(5)]
    await stage.compute.end(0, fault)
    with pytest.raises(type(fault)):
        await leader
    assert len(stage.compute.started) == 2
    await stage.compute.end(1)
    assert [names_of(answer) for answer in await asyncio.gather(*followers)] == [[7]] * 5
    stage.check_empty()


async def test_a_text_that_always_fails_is_computed_twice_for_a_whole_crowd(stage):
    calls = [await stage.call(7) for _ in range(50)]
    await stage.compute.end(0, EncoderUnavailable())
    await stage.compute.end(1, EncoderUnavailable())
    answers = await asyncio.gather(*calls, return_exceptions=True)
    assert {type(answer) for answer in answers} == {EncoderUnavailable}
    assert len(stage.compute.started) == 2
    stage.check_empty()


async def test_a_query_does_not_wait_for_bulk(stage):
    bulk = await stage.call(7)
    query = await stage.call(7, priority=INTERACTIVE)
    assert stage.compute.started == [[7], [7]]
    # The others follow whoever is faster.
    more = [await stage.call(7, priority=priority) for priority in (INTERACTIVE, BULK)]
    assert len(stage.compute.started) == 2
    await stage.compute.end(1)
    assert [names_of(answer) for answer in await asyncio.gather(query, *more)] == [[7]] * 3
    assert not bulk.done()
    await stage.compute.end(0)
    assert names_of(await bulk) == [7]
    stage.check_empty()


async def test_bulk_waits_for_a_query(stage):
    query, bulk = await stage.call(7, priority=INTERACTIVE), await stage.call(7)
    await stage.compute.end(0)
    await asyncio.gather(query, bulk)
    assert stage.compute.started == [[7]]


@pytest.mark.parametrize(
    ("priority", "leader_texts", "tokens", "computations"),
    [
        pytest.param(INTERACTIVE, 4, 60, 1, id="a small call"),
        pytest.param(INTERACTIVE, 5, 60, 2, id="a query behind a large call"),
        pytest.param(BULK, 5, 60, 1, id="bulk behind a pack"),
        pytest.param(BULK, 17, 60, 2, id="bulk behind more than a pack"),
    ],
)
async def test_nobody_waits_for_a_much_larger_call(stage, priority, leader_texts, tokens, computations):
    leader = await stage.call(*range(leader_texts), priority=priority, tokens=tokens)
    follower = await stage.call(0, priority=priority, tokens=tokens)
    assert len(stage.compute.started) == computations
    for index in range(computations):
        await stage.compute.end(index)
    await asyncio.gather(leader, follower)


async def test_large_calls_that_are_equal_share_one_computation(stage):
    calls = [await stage.call(*range(100), tokens=60) for _ in range(3)]
    assert len(stage.compute.started) == 1
    await stage.compute.end(0)
    assert [names_of(answer) for answer in await asyncio.gather(*calls)] == [list(range(100))] * 3


async def test_timings_of_a_leader_and_of_a_follower(stage):
    leader, follower = await stage.call(7), await stage.call(7)
    await asyncio.sleep(0.02)
    await stage.compute.end(0)
    await asyncio.gather(leader, follower)
    led, followed = stage.timings
    assert (led.queue_ms, led.inference_ms) == (3.0, 5.0)
    assert followed.inference_ms == 5.0 and followed.queue_ms >= 14.0


async def test_known_vectors_are_not_computed_and_take_no_time():
    stage = Stage(VectorCache("f", 4, 1 << 20))
    first = await stage.call(1, 2)
    await stage.compute.end(0)
    second = await stage.call(2, 1, 2)
    assert (await second).tobytes() == (await first)[[1, 0, 1]].tobytes()
    assert len(stage.compute.started) == 1
    assert stage.timings[1] == Timings(0.0, 0.0, 0.0)
    assert (stage.repeats.counts.cache, stage.repeats.counts.cache_misses, stage.repeats.counts.call) == (2, 2, 1)
    assert stage.settled[1] == []


async def test_a_call_may_be_answered_from_everywhere():
    stage = Stage(VectorCache("f", 4, 1 << 20))
    known = await stage.call(1)
    await stage.compute.end(0)
    under_way = await stage.call(2)
    mixed = await stage.call(3, 2, 1, 3)
    assert stage.compute.started == [[1], [2], [3]]
    await stage.compute.end(1)
    await stage.compute.end(2)
    assert names_of(await mixed) == [3, 2, 1, 3]
    await asyncio.gather(known, under_way)
    counts = stage.repeats.counts
    assert (counts.call, counts.in_flight, counts.cache, counts.cache_misses) == (1, 1, 1, 4)


async def test_a_vector_begun_before_the_cache_was_cleared_is_not_kept():
    cache = VectorCache("f", 4, 1 << 20)
    stage = Stage(cache)
    call = await stage.call(7)
    cache.clear()
    await stage.compute.end(0)
    await call
    assert cache.entry_count == 0
