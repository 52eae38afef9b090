"""LangChain's and LlamaIndex's OpenAI classes, pointed at the OpenAI door."""

import httpx
import numpy as np
import pytest

TEXTS = ["대한민국의 수도는 서울이다.", "한글은 세종대왕이 창제하였다."]
QUESTION = "대한민국의 수도는 어디인가?"


@pytest.fixture
async def clients():
    """HTTP clients that end with the test; those that the packages make for themselves stay open."""
    with httpx.Client() as synchronous:
        async with httpx.AsyncClient() as asynchronous:
            yield synchronous, asynchronous


@pytest.fixture
def langchain(server, clients):
    from langchain_openai import OpenAIEmbeddings

    def make(model, **options):
        return OpenAIEmbeddings(
            base_url=server.openai_url, api_key="unused", model=model, check_embedding_ctx_length=False,
            http_client=clients[0], http_async_client=clients[1], **options,
        )  # fmt: skip

    return make


@pytest.fixture
def llama_index(server, clients):
    from llama_index.embeddings.openai import OpenAIEmbedding

    def make(model):
        return OpenAIEmbedding(
            api_base=server.openai_url, api_key="unused", model_name=model,
            http_client=clients[0], async_http_client=clients[1],
        )  # fmt: skip

    return make


async def test_langchain_gets_the_vectors_of_the_sdk(langchain, client):
    documents = langchain("e5-small:document").embed_documents(TEXTS)
    query = langchain("e5-small:query").embed_query(QUESTION)
    np.testing.assert_allclose(documents, client.embed_documents(TEXTS), atol=1e-5)
    np.testing.assert_allclose(query, client.embed_queries(QUESTION), atol=1e-5)


async def test_langchain_does_so_asynchronously(langchain, client):
    documents = await langchain("e5-small", dimensions=64).aembed_documents(TEXTS)
    np.testing.assert_allclose(documents, client.embed_documents(TEXTS, dimensions=64), atol=1e-5)


async def test_llama_index_gets_the_vectors_of_the_sdk(llama_index, client):
    documents = llama_index("e5-small:document").get_text_embedding_batch(TEXTS)
    query = llama_index("e5-small:query").get_query_embedding(QUESTION)
    np.testing.assert_allclose(documents, client.embed_documents(TEXTS), atol=1e-5)
    np.testing.assert_allclose(query, client.embed_queries(QUESTION), atol=1e-5)


async def test_llama_index_does_so_asynchronously(llama_index, client):
    query = await llama_index("e5-small:query").aget_query_embedding(QUESTION)
    np.testing.assert_allclose(query, client.embed_queries(QUESTION), atol=1e-5)
