"""What Triton does with what it is sent: batches form, and no text's vector depends on its company."""

import asyncio
import random

import numpy as np
import pytest
from polarvec import AsyncClient


def questions(faq):
    return [row[key] for row in faq for key in ("question_ko", "question_en")]


async def embed_singly(target, texts, callers):
    queue = list(enumerate(texts))
    vectors = [None] * len(texts)

    async with AsyncClient(target) as client:

        async def caller():
            while queue:
                index, text = queue.pop()
                vectors[index] = await client.embed_queries(text)

        await asyncio.gather(*(caller() for _ in range(callers)))
    return np.array(vectors)


def test_64_single_text_callers_share_batches(server, client, faq):
    texts = questions(faq) * 3
    requests, batches = (server.triton_metric(f"nv_inference_{name}") for name in ("request_success", "exec_count"))
    vectors = asyncio.run(embed_singly(server.target, texts, 64))
    requests = server.triton_metric("nv_inference_request_success") - requests
    batches = server.triton_metric("nv_inference_exec_count") - batches
    print(f"{len(texts)} texts in {requests:.0f} requests in {batches:.0f} batches: {len(texts) / batches:.1f} a batch")
    # The gateway joins small packs, and Triton batches what still comes apart.
    assert requests < len(texts) / 2
    assert len(texts) / batches > 4
    cosines = (vectors * np.tile(client.embed_queries(questions(faq)), (3, 1))).sum(axis=1)
    assert cosines.min() >= 0.99999


def test_a_vector_does_not_depend_on_its_company(client, faq):
    texts = [row["answer_ko"] for row in faq[:24]] + [row["question_en"] for row in faq[:24]]
    together = client.embed_documents(texts, truncation="end")
    alone = np.array([client.embed_documents(text, truncation="end") for text in texts])
    order = random.Random(5).sample(range(len(texts)), len(texts))
    reordered = client.embed_documents([texts[i] for i in order], truncation="end")
    assert (together * alone).sum(axis=1).min() >= 0.99999
    assert (together[order] * reordered).sum(axis=1).min() >= 0.99999


@pytest.mark.parametrize("changed", [0, 7, 15])
def test_changing_one_text_leaves_the_others_alone(client, faq, changed):
    texts = [row["question_ko"] for row in faq[:16]]
    before = client.embed_documents(texts)
    texts[changed] = "전혀 다른 문장: 고래는 포유류이다."
    after = client.embed_documents(texts)
    cosines = (before * after).sum(axis=1)
    assert cosines[changed] < 0.99
    assert np.delete(cosines, changed).min() >= 0.99999


def test_a_call_of_many_packs_comes_back_in_order(client, faq):
    texts = [row[key] for row in faq for key in ("answer_ko", "question_ko", "answer_en")]
    together = client.embed_documents(texts, truncation="end", timeout_s=120)
    sample = random.Random(3).sample(range(len(texts)), 20)
    for index in sample:
        assert together[index] @ client.embed_documents(texts[index], truncation="end") >= 0.99999


async def flood(target, texts, callers, texts_a_call, asked):
    """Bulk without a pause until `asked`, given a client, has ended; counts bulk texts answered before and after."""
    answered, ended = 0, asyncio.Event()
    async with AsyncClient(target) as client:

        async def caller(number):
            nonlocal answered
            turn = number
            while not ended.is_set():
                start = turn * texts_a_call % (len(texts) - texts_a_call)
                turn += callers
                await client.embed_documents(
                    [f"{turn} {text}" for text in texts[start : start + texts_a_call]], timeout_s=120
                )
                answered += texts_a_call

        tasks = [asyncio.create_task(caller(number)) for number in range(callers)]
        passed = []
        while answered < 2 * callers * texts_a_call and not any(task.done() for task in tasks):
            await asyncio.sleep(0.05)
        for number in range(8):
            before = answered
            await asked(client, number)
            passed.append(answered - before)
        ended.set()
        await asyncio.gather(*tasks)
    return passed


def test_a_query_passes_short_documents(server, client, faq):
    texts = questions(faq)
    mean_tokens = np.mean([each.token_count for each in client.tokenize(texts, input_type="document")])

    async def ask(client, number):
        await client.embed_queries(f"{number} 번째 질문은 무엇인가요?", timeout_s=60)

    passed = asyncio.run(flood(server.target, texts, 64, 5, ask))
    # Some 7,000 tokens are under way. What passes a query is the group that runs, and what has just ended.
    print(f"bulk tokens answered while a query was under way: {[round(mean_tokens * count) for count in passed]}")
    assert np.median(passed) * mean_tokens < 2 * 1024
