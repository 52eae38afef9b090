"""A program as a user may write it, for mypy --strict; the lines with `wrong:` must each be refused."""

import asyncio
from typing import Any, assert_type

import numpy as np
from numpy.typing import NDArray
from polarvec import (
    AsyncClient,
    Client,
    EmbeddingResult,
    Int8Embeddings,
    Model,
    Ranking,
    StreamItem,
    Tls,
    TokenizedText,
    cosine_similarity,
    hamming_similarity,
)

Vector = np.ndarray[tuple[int], np.dtype[Any]]
Matrix = np.ndarray[tuple[int, int], np.dtype[Any]]


def blocking(texts: list[str]) -> None:
    with Client(["one:50051", "two:50051"], tls=Tls(ca="ca.pem"), hedge_after_s=0.5, api_key="key") as client:
        assert_type(client.embed_queries("a"), Vector)
        assert_type(client.embed_documents(texts), Matrix)
        assert_type(client.embed_documents(texts, encoding="int8"), Int8Embeddings)
        assert_type(client.embed("a", input_type="raw", encoding="binary", timeout_s=1), Vector)
        assert_type(client.embed_detailed(texts, input_type="document"), EmbeddingResult)
        assert_type(client.rank("a", texts), Ranking)
        assert_type(client.rank(["a"], texts, top_k=3), list[Ranking])
        assert_type(client.tokenize(texts, input_type="query"), list[TokenizedText])
        assert_type(client.models(), list[Model])
        assert_type(client.health(), bool)
        for item in client.embed_stream((text for text in texts), input_type="document", progress=True):
            assert_type(item, StreamItem)
        scores = cosine_similarity(client.embed_queries("a"), client.embed_documents(texts))
        assert_type(scores, NDArray[np.float32])
        hamming_similarity(client.embed_queries("a", encoding="binary"), client.embed_documents(texts))


async def awaiting(texts: list[str]) -> None:
    async with AsyncClient("one:50051") as client:
        assert_type(await client.embed_queries("a"), Vector)
        assert_type(await client.embed_documents(texts, traceparent="00-"), Matrix)
        async for item in client.embed_stream(texts, input_type="document"):
            assert_type(item, StreamItem)


def wrong(client: Client, texts: list[str]) -> None:
    client.embed("a")  # wrong: call-overload
    client.embed("a", input_type="passage")  # wrong: call-overload
    client.embed_queries("a", dimension=8)  # wrong: call-overload
    client.embed_queries(1)  # wrong: call-overload
    client.embed_detailed(texts, input_type="query", encoding="float64")  # wrong: arg-type
    client.rank("a", "b")  # wrong: call-overload
    Client("one", tls=True)  # wrong: arg-type
    Client(50051)  # wrong: arg-type
    print(client.embed_queries("a").embeddings)  # wrong: attr-defined
    cosine_similarity("a", "b")  # wrong: arg-type


asyncio.run(awaiting(["a"]))
