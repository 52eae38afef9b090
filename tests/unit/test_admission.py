import asyncio
import itertools

import pytest
from polarvec_server.errors import Overloaded
from polarvec_server.pipeline.admission import Admission, estimate_tokens
from polarvec_server.pipeline.values import Priority

BULK, INTERACTIVE = Priority.BULK, Priority.INTERACTIVE


def test_a_call_is_refused_when_its_share_is_used_up():
    admission = Admission(400, lambda: 50.0)
    with admission.admit(80, BULK, 30.0):
        with pytest.raises(Overloaded) as caught:
            admission.admit(40, BULK, 30.0)
        # 20 tokens too many at 50 a second, within the jitter of a fifth.
        assert 0.3 <= caught.value.retry_after_s <= 0.5
        with admission.admit(20, BULK, 30.0):
            assert admission.held_tokens == 100
    assert admission.held_tokens == 0


def test_refused_calls_are_told_to_come_back_one_behind_the_other():
    admission = Admission(400, lambda: 50.0)
    delays = []
    with admission.admit(100, BULK, None):
        for _ in range(20):
            with pytest.raises(Overloaded) as caught:
                admission.admit(50, BULK, None)
            delays.append(caught.value.retry_after_s)
        with pytest.raises(Overloaded) as another_kind:
            admission.admit(250, INTERACTIVE, None) and admission.admit(50, INTERACTIVE, None)
    # 50 tokens too many at 50 a second; then a second more each, up to five behind whatever is ahead.
    assert 0.8 <= delays[0] <= 1.2
    assert all(late - early > 0.5 for early, late in itertools.pairwise(delays[:5]))
    assert max(delays) <= 1.2 + 5.0
    # Another kind has a line of its own.
    assert another_kind.value.retry_after_s <= 2.4


@pytest.mark.parametrize(("priority", "tokens"), [(INTERACTIVE, 200), (BULK, 100)])
def test_calls_of_a_share_are_let_in_together(priority, tokens):
    admission = Admission(400, lambda: None)
    assert admission.share_tokens(priority) == tokens
    with admission.admit(tokens // 2, priority, None), admission.admit(tokens // 2, priority, None):
        assert admission.held_tokens == tokens
        with pytest.raises(Overloaded):
            admission.admit(1, priority, None)


def test_a_call_larger_than_its_share_is_let_in_alone():
    admission = Admission(400, lambda: None)
    with admission.admit(5000, BULK, None), pytest.raises(Overloaded):
        admission.admit(1, BULK, None)


async def test_bulk_and_streams_never_crowd_out_interactive_calls():
    admission = Admission(400, lambda: None)
    admission.admit(100, BULK, None)
    await admission.wait_for_room(100)
    for _ in range(10):
        admission.admit(20, INTERACTIVE, None)
    with pytest.raises(Overloaded):
        admission.admit(1, INTERACTIVE, None)
    assert admission.held_tokens == 400


async def test_a_stream_gets_its_share_under_a_load_of_single_calls():
    admission = Admission(400, lambda: None)
    admission.admit(100, BULK, None)
    ticket = await asyncio.wait_for(admission.wait_for_room(60), 1)
    ticket.settle(0)


def test_the_exact_count_replaces_the_estimate():
    admission = Admission(400, lambda: None)
    with admission.admit(90, BULK, None) as ticket:
        ticket.settle(10)
        admission.admit(90, BULK, None)


def test_a_call_that_would_wait_past_its_deadline_is_refused_at_once():
    admission = Admission(40_000, lambda: 10.0)
    with admission.admit(100, BULK, None):
        with pytest.raises(Overloaded):
            admission.admit(1, BULK, 1.0)
        # Interactive calls overtake bulk.
        admission.admit(1, INTERACTIVE, 1.0)


async def test_items_of_streams_wait_for_room_in_order():
    admission = Admission(400, lambda: None)
    first = await admission.wait_for_room(100)
    order = []

    async def enter(name, tokens):
        ticket = await admission.wait_for_room(tokens)
        order.append(name)
        return ticket

    waiting = [asyncio.create_task(enter(name, tokens)) for name, tokens in (("a", 60), ("b", 60), ("c", 10))]
    await asyncio.sleep(0)
    assert order == []
    first.settle(0)
    ticket = await waiting[0]
    assert order == ["a"] and not waiting[1].done() and not waiting[2].done()
    ticket.settle(0)
    await asyncio.gather(*waiting)
    assert order == ["a", "b", "c"]


async def test_a_stream_that_gives_up_waiting_leaves_its_room_to_others():
    admission = Admission(400, lambda: None)
    first = await admission.wait_for_room(100)
    gone = asyncio.create_task(admission.wait_for_room(50))
    await asyncio.sleep(0)
    gone.cancel()
    with pytest.raises(asyncio.CancelledError):
        await gone
    # Cancelled at the very moment at which it is let in.
    late = asyncio.create_task(admission.wait_for_room(50))
    await asyncio.sleep(0)
    first.settle(0)
    late.cancel()
    with pytest.raises(asyncio.CancelledError):
        await late
    assert admission.held_tokens == 0


@pytest.mark.parametrize(
    ("texts", "tokens"),
    [(["x" * 25], 12), (["x" * 10**6], 512), (["x"] * 3, 6)],
    ids=["short", "at most the limit", "many"],
)
def test_estimates(texts, tokens):
    assert estimate_tokens(texts, "", 512) == tokens
