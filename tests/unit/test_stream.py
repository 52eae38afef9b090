import asyncio

import pytest
from polarvec_proto.v1 import embedding_pb2 as pb
from polarvec_server.edge.stream import answer_items
from polarvec_server.errors import EmptyText, MalformedMessage


def item(number):
    return pb.EmbedStreamRequest(item_number=number, request=pb.EmbedRequest(texts=[str(number)]))


async def embed(request):
    await asyncio.sleep(0.01)
    if request.texts[0] == "3":
        raise EmptyText("texts", 0)
    if request.texts[0] == "4":
        raise KeyError("a bug")
    return pb.EmbedResponse(model=request.texts[0])


async def test_every_item_gets_its_own_answer():
    async def items():
        for number in range(40):
            yield item(number)

    answers = {answer.item_number: answer async for answer in answer_items(items(), embed)}
    assert set(answers) == set(range(40))
    assert answers[3].error.code == 3 and answers[4].error.code == 13
    assert "bug" not in answers[4].error.message
    assert answers[5].response.model == "5"


async def test_items_before_an_unreadable_one_are_answered():
    async def items():
        for number in range(5, 10):
            yield item(number)
        raise MalformedMessage

    answered = []
    with pytest.raises(MalformedMessage):
        async for answer in answer_items(items(), embed):
            answered.append(answer.item_number)
    assert sorted(answered) == [5, 6, 7, 8, 9]


async def test_no_more_items_are_read_than_can_be_worked_on():
    read, gate = [], asyncio.Event()

    async def items():
        for number in range(5, 100):
            read.append(number)
            yield item(number)

    async def slow(request):
        await gate.wait()
        return pb.EmbedResponse()

    stream = answer_items(items(), slow)
    first = asyncio.ensure_future(anext(stream))
    await asyncio.sleep(0.05)
    assert len(read) == 16
    gate.set()
    await first
    assert len([1 async for _ in stream]) == 94


async def test_a_caller_that_leaves_ends_the_work():
    started, cancelled = asyncio.Event(), asyncio.Event()

    async def items():
        yield item(7)
        await asyncio.sleep(60)

    async def endless(request):
        started.set()
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            cancelled.set()
            raise

    stream = answer_items(items(), endless)
    waiting = asyncio.ensure_future(anext(stream))
    await started.wait()
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    await stream.aclose()
    await asyncio.wait_for(cancelled.wait(), 1)
