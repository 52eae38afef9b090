import asyncio
import time

import numpy as np
import pytest
from polarvec_server.errors import DeadlineExceeded, EncoderDied, EncoderUnavailable, InternalError, NonFinite
from polarvec_server.pipeline.dispatch import Dispatcher
from polarvec_server.pipeline.values import Pack, Priority, Timings

BULK, INTERACTIVE = Priority.BULK, Priority.INTERACTIVE


def pack(name, tokens=10):
    return Pack(np.full(tokens, name, np.int32), np.array([tokens], np.int32), np.zeros(1, np.int64))


class GateEncoder:
    """Answers in the order in which the test opens its gate; it stands where faults have to be injected."""

    def __init__(self):
        self.sent, self._gates = [], []

    async def encode(self, pack):
        gate = asyncio.get_running_loop().create_future()
        self.sent.append(int(pack.token_ids[0]))
        self._gates.append(gate)
        error = await gate
        if error:
            raise error
        return np.full((1, 4), pack.token_ids[0], np.float32)

    async def open(self, count=1, error=None):
        for _ in range(count):
            self._gates.pop(0).set_result(error)
            for _ in range(4):
                await asyncio.sleep(0)


def start(dispatcher, names, priority=BULK, deadline=None, tokens=10):
    packs = [pack(name, tokens) for name in names]
    return asyncio.create_task(dispatcher.run(packs, priority, deadline, Timings()))


async def settle():
    for _ in range(5):
        await asyncio.sleep(0)


@pytest.fixture
def encoder():
    return GateEncoder()


@pytest.fixture
async def dispatcher(encoder):
    dispatcher = Dispatcher(dict.fromkeys(Priority, encoder), 20)
    dispatcher.set_available(True)
    return dispatcher


async def test_only_a_window_of_tokens_is_in_flight(encoder, dispatcher):
    call = start(dispatcher, [1, 2, 3, 4, 5])
    await settle()
    assert encoder.sent == [1, 2]
    assert dispatcher.in_flight_tokens == 20
    await encoder.open()
    assert encoder.sent == [1, 2, 3]
    await encoder.open(4)
    assert [int(vectors[0, 0]) for _, vectors in await call] == [1, 2, 3, 4, 5]
    assert dispatcher.in_flight_tokens == 0


async def test_a_pack_larger_than_the_window_goes_alone(encoder, dispatcher):
    small, large = start(dispatcher, [1]), start(dispatcher, [2], tokens=50)
    await settle()
    assert encoder.sent == [1]
    await encoder.open()
    assert encoder.sent == [1, 2]
    await encoder.open()
    await asyncio.gather(small, large)


async def test_queries_overtake_documents_in_the_queue(encoder, dispatcher):
    queries = start(dispatcher, [1, 2], INTERACTIVE)
    await settle()
    bulk, late = start(dispatcher, [3, 4]), start(dispatcher, [9], INTERACTIVE)
    await settle()
    await encoder.open(2)
    assert encoder.sent == [1, 2, 9, 3]
    await encoder.open(3)
    await asyncio.gather(queries, bulk, late)


async def test_a_query_is_sent_while_bulk_fills_the_window(encoder, dispatcher):
    bulk = start(dispatcher, [1, 2, 3])
    await settle()
    query = start(dispatcher, [9], INTERACTIVE)
    await settle()
    assert encoder.sent == [1, 2, 9]
    await encoder.open(4)
    await asyncio.gather(bulk, query)


async def test_calls_take_turns(encoder, dispatcher):
    huge = start(dispatcher, range(100, 120))
    await settle()
    small = start(dispatcher, [1, 2])
    await settle()
    await encoder.open(6)
    assert encoder.sent.index(2) <= 6
    await encoder.open(16)
    await asyncio.gather(huge, small)


async def test_expired_work_is_never_sent(encoder, dispatcher):
    blocking = start(dispatcher, [1, 2])
    await settle()
    late = start(dispatcher, [7], deadline=time.monotonic() + 0.05)
    with pytest.raises(DeadlineExceeded):
        await late
    await encoder.open(2)
    await blocking
    assert encoder.sent == [1, 2]


async def test_work_of_a_caller_that_left_is_never_sent(encoder, dispatcher):
    blocking, gone = start(dispatcher, [1, 2]), start(dispatcher, [7])
    await settle()
    gone.cancel()
    await settle()
    await encoder.open(2)
    await blocking
    assert encoder.sent == [1, 2]


async def test_a_cancelled_caller_does_not_cancel_what_was_sent(encoder, dispatcher):
    call = start(dispatcher, [1])
    await settle()
    call.cancel()
    await settle()
    assert dispatcher.in_flight_tokens == 10
    await encoder.open()
    assert dispatcher.in_flight_tokens == 0


async def test_packs_are_sent_again_after_the_encoder_died(encoder, dispatcher):
    deaths = []
    dispatcher.when_encoder_dies(lambda: deaths.append(1))
    call = start(dispatcher, [1, 2])
    await settle()
    await encoder.open(2, EncoderDied())
    assert encoder.sent == [1, 2] and deaths
    dispatcher.set_available(True)
    await settle()
    assert sorted(encoder.sent[2:]) == [1, 2]
    await encoder.open(2)
    assert sorted(int(vectors[0, 0]) for _, vectors in await call) == [1, 2]


async def test_a_pack_that_kills_the_encoder_twice_is_given_up(encoder, dispatcher):
    call = start(dispatcher, [1])
    await settle()
    for _ in range(2):
        await encoder.open(1, EncoderDied())
        dispatcher.set_available(True)
        await settle()
    with pytest.raises(EncoderUnavailable):
        await call
    assert encoder.sent == [1, 1]


async def test_one_failed_pack_fails_its_call_only(encoder, dispatcher):
    bad, good = start(dispatcher, [1, 3, 4]), start(dispatcher, [2])
    await settle()
    await encoder.open(1, NonFinite())
    with pytest.raises(NonFinite):
        await bad
    await encoder.open(2)
    assert len(await good) == 1
    assert 4 not in encoder.sent


async def test_a_fault_of_our_own_ends_the_call(encoder, dispatcher):
    call = start(dispatcher, [1])
    await settle()
    await encoder.open(1, KeyError("a bug"))
    with pytest.raises(InternalError):
        await call
    assert dispatcher.in_flight_tokens == 0


async def test_calls_are_refused_while_the_encoder_stays_away(encoder):
    dispatcher = Dispatcher(dict.fromkeys(Priority, encoder), 20)
    with pytest.raises(EncoderUnavailable):
        await start(dispatcher, [1])
    dispatcher.set_available(True)
    call = start(dispatcher, [1])
    await settle()
    dispatcher.set_available(False)
    waiting = start(dispatcher, [2])
    await settle()
    assert not waiting.done()
    dispatcher.refuse_all()
    with pytest.raises(EncoderUnavailable):
        await waiting
    with pytest.raises(EncoderUnavailable):
        await call
    await encoder.open()


async def test_the_rate_counts_busy_time_only(encoder, dispatcher):
    assert dispatcher.tokens_per_s() is None
    for name in range(5):
        call = start(dispatcher, [name])
        await settle()
        await asyncio.sleep(0.01)
        await encoder.open()
        await call
        await asyncio.sleep(0.05)
    # 10 tokens in 10 ms at the fastest; with the idle 50 ms counted it could not be above 170.
    assert 20 < dispatcher.tokens_per_s() < 1100


class PacedEncoder:
    """Answers every pack after a fixed time on a clock that the test holds."""

    def __init__(self, clock, seconds):
        self.clock, self.seconds = clock, seconds
        self.most, self._under_way = 0, 0

    async def encode(self, pack):
        self._under_way += pack.token_count
        self.most = max(self.most, self._under_way)
        await asyncio.sleep(0)
        self.clock.now += self.seconds
        self._under_way -= pack.token_count
        return np.zeros((1, 4), np.float32)


class Clock:
    now = 1000.0

    def monotonic(self):
        return self.now


async def most_in_flight(monkeypatch, seconds_a_pack, window, max_window, packs=60):
    """The most tokens on their way after the rate is known, in packs of 10."""
    clock = Clock()
    monkeypatch.setattr("polarvec_server.pipeline.dispatch.time", clock)
    encoder = PacedEncoder(clock, seconds_a_pack)
    dispatcher = Dispatcher(dict.fromkeys(Priority, encoder), window, max_window)
    dispatcher.set_available(True)
    await start(dispatcher, range(packs))
    encoder.most = 0
    await start(dispatcher, range(packs))
    return encoder.most, dispatcher.tokens_per_s()


@pytest.mark.parametrize(
    ("seconds_a_pack", "max_window", "most"),
    [
        pytest.param(1.0, 100, 20, id="slow"),
        pytest.param(0.095, 100, 60, id="as much as it computes in 0.6 s"),
        pytest.param(0.01, 100, 100, id="never above the largest"),
        pytest.param(0.01, 0, 20, id="a fixed window"),
        pytest.param(0.01, 10, 20, id="a largest below the window"),
    ],
)
async def test_the_window_grows_with_the_measured_rate(monkeypatch, seconds_a_pack, max_window, most):
    found, rate = await most_in_flight(monkeypatch, seconds_a_pack, 20, max_window)
    assert rate == pytest.approx(10 / seconds_a_pack)
    assert found == most


async def test_before_the_first_answer_the_window_is_the_small_one(encoder):
    dispatcher = Dispatcher(dict.fromkeys(Priority, encoder), 20, 100)
    dispatcher.set_available(True)
    call = start(dispatcher, range(10))
    await settle()
    assert dispatcher.in_flight_tokens == 20
    call.cancel()
    await encoder.open(2)
