import asyncio

import pytest
from polarvec_server.edge.ordered_stream import answer_in_order
from polarvec_server.errors import EmptyText, MalformedMessage


async def numbers(count: int, taken: list[int] | None = None):
    for number in range(count):
        if taken is not None:
            taken.append(number)
        yield number


async def read_all(answers) -> tuple[list[int], Exception | None]:
    got = []
    try:
        async for answer in answers:
            got.append(answer)
    except Exception as error:
        return got, error
    return got, None


async def test_answers_keep_the_order_of_the_items():
    async def answer(number: int) -> int:
        await asyncio.sleep(0.02 if number % 3 == 0 else 0)
        return number

    assert await read_all(answer_in_order(numbers(30), answer, 8)) == (list(range(30)), None)


async def test_items_are_read_only_while_there_is_room():
    taken: list[int] = []

    async def answer(number: int) -> int:
        return number

    answers = answer_in_order(numbers(100, taken), answer, 4)
    assert await anext(answers) == 0
    for _ in range(50):
        await asyncio.sleep(0)
    # The first answer is out but not yet followed by a wish for the next one.
    assert len(taken) == 4
    assert await anext(answers) == 1
    for _ in range(50):
        await asyncio.sleep(0)
    assert len(taken) == 5
    await answers.aclose()


async def test_the_first_bad_item_ends_it_after_those_before_it():
    async def answer(number: int) -> int:
        await asyncio.sleep(0.01 * (5 - number) if number < 5 else 0)
        if number in (3, 4):
            raise EmptyText("inputs", number)
        return number

    got, error = await read_all(answer_in_order(numbers(10), answer, 8))
    assert got == [0, 1, 2]
    assert isinstance(error, EmptyText) and error.metadata == {"index": "3"}


async def test_what_was_read_before_an_unreadable_item_is_answered():
    async def items():
        yield 0
        yield 1
        raise MalformedMessage

    async def answer(number: int) -> int:
        await asyncio.sleep(0.01)
        return number

    got, error = await read_all(answer_in_order(items(), answer, 8))
    assert got == [0, 1] and isinstance(error, MalformedMessage)


async def test_closing_it_cancels_what_is_on_its_way():
    cancelled = []

    async def answer(number: int) -> int:
        try:
            await asyncio.sleep(0 if number == 0 else 60)
        except asyncio.CancelledError:
            cancelled.append(number)
            raise
        return number

    answers = answer_in_order(numbers(10), answer, 4)
    assert await anext(answers) == 0
    await asyncio.sleep(0.01)
    await answers.aclose()
    assert sorted(cancelled) == [1, 2, 3]


async def test_a_fault_of_the_sender_is_not_swallowed():
    async def items():
        yield 0
        raise ConnectionError

    async def answer(number: int) -> int:
        return number

    with pytest.raises(ConnectionError):
        async for _ in answer_in_order(items(), answer, 4):
            pass
