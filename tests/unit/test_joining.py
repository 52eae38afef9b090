import asyncio

import numpy as np
import pytest
from polarvec_encoder import job
from polarvec_server.errors import EncoderDied, InternalError, NonFinite
from polarvec_server.pipeline import joining, repeats
from polarvec_server.pipeline.joining import BULK_TOKENS, SMALL_TOKENS, JoiningEncoder
from polarvec_server.pipeline.values import Pack


def pack(*names, tokens=10):
    """A pack of one text for each name; every token of a text is its name."""
    ids = np.repeat(np.array(names, np.int32), tokens)
    return Pack(ids, np.full(len(names), tokens, np.int32), np.arange(len(names)))


def names_of(pack):
    starts = np.cumsum(pack.lengths) - pack.lengths
    return pack.token_ids[starts].tolist()


class GateEncoder:
    """Answers when the test says so; it stands where faults have to be injected."""

    def __init__(self, bad=()):
        self.sent, self._gates, self._bad = [], [], set(bad)

    async def encode(self, pack):
        names = names_of(pack)
        gate = asyncio.get_running_loop().create_future()
        self.sent.append(names)
        self._gates.append(gate)
        error = await gate
        if error or self._bad & set(names):
            raise error or NonFinite()
        return np.array([[name] * 4 for name in names], np.float32)

    async def open(self, error=None):
        self._gates.pop(0).set_result(error)
        await settle()


async def settle():
    for _ in range(6):
        await asyncio.sleep(0)


async def test_packs_of_one_turn_travel_together_and_come_back_apart():
    encoder = GateEncoder()
    joined = JoiningEncoder(encoder, 1)
    answers = [joined.encode(pack(1)), joined.encode(pack(2, 3)), joined.encode(pack(4))]
    await settle()
    assert encoder.sent == [[1, 2, 3, 4]]
    await encoder.open()
    assert [answer.result()[:, 0].tolist() for answer in answers] == [[1], [2, 3], [4]]


async def test_a_lone_pack_waits_for_nobody():
    encoder = GateEncoder()
    joined = JoiningEncoder(encoder, 1)
    for name in (1, 2):
        answer = joined.encode(pack(name))
        await settle()
        assert encoder.sent[-1] == [name]
        await encoder.open()
        assert answer.done()


async def test_what_comes_while_the_encoder_is_busy_gathers():
    encoder = GateEncoder()
    joined = JoiningEncoder(encoder, 1)
    first = joined.encode(pack(1))
    await settle()
    later = []
    for name in (2, 3, 4):
        later.append(joined.encode(pack(name)))
        await settle()
    assert encoder.sent == [[1]]
    await encoder.open()
    assert first.done() and encoder.sent == [[1], [2, 3, 4]]
    await encoder.open()
    assert all(answer.done() for answer in later)


async def _after_company(encoder):
    """A joining encoder whose last request held two packs, and is back."""
    joined = JoiningEncoder(encoder, 1)
    joined.encode(pack(1))
    joined.encode(pack(2))
    await settle()
    await encoder.open()
    assert encoder.sent.pop(0) == [1, 2]
    return joined


async def test_after_company_packs_gather_while_the_loop_brings_more(monkeypatch):
    monkeypatch.setattr(joining, "_LONGEST_GATHERING_S", 60.0)
    encoder = GateEncoder()
    joined = await _after_company(encoder)
    # Each some turns of the loop behind the other, all of them together more than one quiet spell.
    for name in range(3, 9):
        joined.encode(pack(name))
        for _ in range(joining._QUIET_TURNS // 2):
            await asyncio.sleep(0)
        assert encoder.sent == []
    for _ in range(joining._QUIET_TURNS):
        await asyncio.sleep(0)
    await settle()
    assert encoder.sent == [[3, 4, 5, 6, 7, 8]]


async def test_after_company_a_full_request_leaves_at_once(monkeypatch):
    monkeypatch.setattr(joining, "_LONGEST_GATHERING_S", 60.0)
    encoder = GateEncoder()
    joined = await _after_company(encoder)
    for name in range(3, 6):
        joined.encode(pack(name, tokens=SMALL_TOKENS // 3 + 1))
    await settle()
    assert encoder.sent == [[3, 4]]


async def test_gathering_ends_by_the_clock_where_turns_are_long(monkeypatch):
    monkeypatch.setattr(joining, "_LONGEST_GATHERING_S", 0.0)
    encoder = GateEncoder()
    joined = await _after_company(encoder)
    joined.encode(pack(3))
    await settle()
    assert encoder.sent == [[3]]


async def test_who_was_alone_last_time_waits_for_nobody_again(monkeypatch):
    monkeypatch.setattr(joining, "_LONGEST_GATHERING_S", 60.0)
    encoder = GateEncoder()
    joined = await _after_company(encoder)
    joined.encode(pack(3))
    for _ in range(joining._QUIET_TURNS):
        await asyncio.sleep(0)
    await settle()
    await encoder.open()
    joined.encode(pack(4))
    await settle()
    assert encoder.sent == [[3], [4]]


async def test_a_full_request_does_not_wait_for_the_one_before():
    encoder = GateEncoder()
    joined = JoiningEncoder(encoder, 1)
    for name in range(30):
        joined.encode(pack(name))
        await settle()
    assert [len(names) for names in encoder.sent] == [1, SMALL_TOKENS // 10]
    assert max(len(names) * 10 for names in encoder.sent) <= SMALL_TOKENS


async def test_a_large_pack_passes_alone_and_at_once():
    encoder = GateEncoder()
    joined = JoiningEncoder(encoder, 1)
    small = joined.encode(pack(1))
    await settle()
    large = joined.encode(pack(2, tokens=SMALL_TOKENS // 2 + 1))
    await settle()
    assert encoder.sent == [[1], [2]]
    await encoder.open()
    await encoder.open()
    assert small.done() and large.done()


async def test_full_requests_of_bulk_are_never_small():
    encoder = GateEncoder()
    joined = JoiningEncoder(encoder, 1, BULK_TOKENS)
    joined.encode(pack(1))
    await settle()
    for name, tokens in enumerate((1, 256, 256, 200, 57, 130, 3, 256, 256, 100), 2):
        joined.encode(pack(name, tokens=tokens))
        await settle()
    # One that the encoder does not take for small by itself passes.
    joined.encode(pack(12, tokens=SMALL_TOKENS + 1))
    await settle()
    assert encoder.sent == [[1], [2, 3], [4, 5], [6, 7, 8, 9], [12]]
    for _ in range(4):
        await encoder.open()
    await asyncio.sleep(2 * joining._LONGEST_GATHERING_S)
    assert encoder.sent[5:] == [[10, 11]]


async def test_one_bad_text_fails_its_own_call_only():
    encoder = GateEncoder(bad=[2])
    joined = JoiningEncoder(encoder, 1)
    answers = {name: joined.encode(pack(name)) for name in (1, 2, 3)}
    await settle()
    for _ in range(4):
        await encoder.open()
    assert encoder.sent == [[1, 2, 3], [1], [2], [3]]
    with pytest.raises(NonFinite):
        answers[2].result()
    assert [answers[name].result()[0, 0] for name in (1, 3)] == [1, 3]


async def test_a_dead_encoder_is_told_to_everybody_at_once():
    encoder = GateEncoder()
    joined = JoiningEncoder(encoder, 1)
    answers = [joined.encode(pack(name)) for name in (1, 2)]
    await settle()
    await encoder.open(EncoderDied())
    assert encoder.sent == [[1, 2]]
    assert all(isinstance(answer.exception(), EncoderDied) for answer in answers)


async def test_a_request_that_is_cancelled_leaves_nobody_waiting():
    encoder = GateEncoder()
    joined = JoiningEncoder(encoder, 1)
    answers = [joined.encode(pack(name)) for name in (1, 2)]
    await settle()
    # What grpc.aio raises in a call whose channel is closed.
    await encoder.open(asyncio.CancelledError())
    assert all(answer.cancelled() for answer in answers)
    again = joined.encode(pack(3))
    await asyncio.sleep(2 * joining._LONGEST_GATHERING_S)
    await encoder.open()
    assert again.result()[0, 0] == 3


async def test_a_caller_that_left_takes_nobody_along():
    encoder = GateEncoder()
    joined = JoiningEncoder(encoder, 1)
    left, stays = joined.encode(pack(1)), joined.encode(pack(2))
    await settle()
    left.cancel()
    await encoder.open()
    assert stays.result()[0, 0] == 2


async def test_after_a_failure_the_next_ones_are_sent():
    encoder = GateEncoder()
    joined = JoiningEncoder(encoder, 1)
    failed = joined.encode(pack(1))
    await settle()
    waiting = joined.encode(pack(2))
    await settle()
    await encoder.open(InternalError())
    assert isinstance(failed.exception(), InternalError)
    await encoder.open()
    assert waiting.result()[0, 0] == 2


def test_gateway_and_encoder_agree_on_what_is_small():
    assert joining.SMALL_TOKENS == repeats._SMALL_TOKENS == job.SMALL_TOKENS
