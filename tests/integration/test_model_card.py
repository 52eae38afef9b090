"""The model card's own example, through SDK, gateway and Triton."""

import asyncio

import numpy as np
from polarvec import AsyncClient

QUERIES = ["대한민국의 수도는 어디인가?", "한글을 만든 사람은 누구인가?"]
DOCUMENTS = ["대한민국의 수도는 서울이다.", "한글은 세종대왕이 창제하였다."]


def test_each_query_ranks_its_document_first(client):
    for place, ranking in enumerate(client.rank(QUERIES, DOCUMENTS)):
        assert ranking.document_indexes[0] == place
        assert ranking.scores[0] > ranking.scores[1]


def test_rank_is_the_cosine_of_the_embeddings(client):
    scores = client.embed_queries(QUERIES) @ client.embed_documents(DOCUMENTS).T
    for place, ranking in enumerate(client.rank(QUERIES, DOCUMENTS)):
        order = np.argsort(-scores[place], kind="stable")
        assert list(ranking.document_indexes) == order.tolist()
        np.testing.assert_allclose(ranking.scores, scores[place][order], atol=1e-5)


def test_top_k(client):
    (ranking,) = client.rank([QUERIES[1]], DOCUMENTS, top_k=1)
    assert list(ranking.document_indexes) == [1]


def test_the_same_through_the_async_client(server):
    async def ask():
        async with AsyncClient(server.target) as client:
            return await client.rank(QUERIES, DOCUMENTS)

    assert [ranking.document_indexes[0] for ranking in asyncio.run(ask())] == [0, 1]
