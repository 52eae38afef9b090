import asyncio

import numpy as np
import pytest
from polarvec_server.edge.text_groups import TextGroups
from polarvec_server.errors import EncoderUnavailable, TextTooLong
from polarvec_server.pipeline.embedder import Embedded
from polarvec_server.pipeline.values import InputType, TextOptions, Timings, Tokenized, VectorOptions

RAW, ALL = TextOptions(InputType.RAW, field="inputs", single=True), VectorOptions()


class Encoder:
    """Notes each call and answers when told to; a text's vector is its length."""

    def __init__(self, error: Exception | None = None) -> None:
        self.calls: list[list[str]] = []
        self.go = asyncio.Event()
        self.error = error

    async def embed(self, texts, text_options, vector_options):
        self.calls.append(list(texts))
        await self.go.wait()
        if "bad" in texts:
            raise TextTooLong("inputs", None if len(texts) == 1 else texts.index("bad"), "token", 9, 8)
        if self.error:
            raise self.error
        lengths = np.array([len(text) for text in texts])
        tokenized = Tokenized(np.zeros(lengths.sum(), np.int32), np.cumsum([0, *lengths]), lengths)
        return Embedded(lengths[:, None].astype(np.float32), tokenized), Timings()


async def started(groups: TextGroups, texts, vector_options=ALL) -> list[asyncio.Task]:
    tasks = [asyncio.create_task(groups.embed(text, RAW, vector_options)) for text in texts]
    for _ in range(5):
        await asyncio.sleep(0)
    return tasks


async def test_the_first_goes_alone_and_those_that_come_meanwhile_together():
    encoder = Encoder()
    groups = TextGroups(encoder.embed, 1024)
    texts = ["a" * length for length in range(1, 11)]
    tasks = [task for text in texts for task in await started(groups, [text])]
    assert encoder.calls == [texts[:1], texts[1:2]]
    encoder.go.set()
    answers = await asyncio.gather(*tasks)
    assert encoder.calls == [texts[:1], texts[1:2], texts[2:]]
    assert [(answer.vector.tolist(), answer.token_count) for answer in answers] == [([n], n) for n in range(1, 11)]


@pytest.mark.parametrize(("text", "max_texts", "sizes"), [("a", 1024, [1, 1, 64, 34]), ("a", 40, [1, 1, 40, 40, 18])])
async def test_a_group_has_a_most_of_texts(text, max_texts, sizes):
    encoder = Encoder()
    groups = TextGroups(encoder.embed, max_texts)
    tasks = [task for _ in range(100) for task in await started(groups, [text])]
    encoder.go.set()
    await asyncio.gather(*tasks)
    assert [len(call) for call in encoder.calls] == sizes


async def test_a_group_has_a_most_of_characters():
    encoder = Encoder()
    groups = TextGroups(encoder.embed, 1024)
    tasks = [task for _ in range(6) for task in await started(groups, ["a" * 12_000])]
    encoder.go.set()
    await asyncio.gather(*tasks)
    assert [len(call) for call in encoder.calls] == [1, 1, 2, 2]


async def test_texts_with_other_options_go_apart():
    encoder = Encoder()
    groups = TextGroups(encoder.embed, 1024)
    tasks = [task for text in "ab" for task in await started(groups, [text])]
    tasks += await started(groups, "cd")
    tasks += await started(groups, "ef", VectorOptions(32))
    encoder.go.set()
    await asyncio.gather(*tasks)
    assert encoder.calls == [["a"], ["b"], ["c", "d"], ["e", "f"]]


async def test_a_bad_text_spoils_no_other_and_its_error_is_about_one_text():
    encoder = Encoder()
    groups = TextGroups(encoder.embed, 1024)
    tasks = [task for text in "ab" for task in await started(groups, [text])]
    tasks += await started(groups, ["c", "bad", "d"])
    encoder.go.set()
    answers = await asyncio.gather(*tasks, return_exceptions=True)
    assert [isinstance(answer, Exception) for answer in answers] == [False, False, False, True, False]
    assert answers[3].field == "inputs"


async def test_an_error_of_the_encoder_is_everybodys_and_tried_once():
    encoder = Encoder(EncoderUnavailable())
    groups = TextGroups(encoder.embed, 1024)
    tasks = [task for text in "abcd" for task in await started(groups, [text])]
    encoder.go.set()
    answers = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(isinstance(answer, EncoderUnavailable) for answer in answers)
    assert encoder.calls == [["a"], ["b"], ["c", "d"]]


async def test_closing_drops_what_is_on_its_way():
    encoder = Encoder()
    groups = TextGroups(encoder.embed, 1024)
    tasks = [task for text in "abcd" for task in await started(groups, [text])]
    groups.close()
    encoder.go.set()
    done, waiting = await asyncio.wait(tasks, timeout=0.1)
    assert not done and encoder.calls == [["a"], ["b"]]
    for task in waiting:
        task.cancel()
