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
