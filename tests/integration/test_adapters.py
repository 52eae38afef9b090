"""The adapters with the real frameworks on a real server: what they give is what the SDK gives."""

import asyncio
import copy
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from polarvec import AsyncClient, Client, InvalidRequest, Tls, Unavailable

DOCUMENTS = ["대한민국의 수도는 서울이다.", "한글은 세종대왕이 창제하였다.", "Debian is a free operating system."]
QUERY = "한글을 만든 사람은 누구인가?"


@pytest.fixture(scope="module")
def expected(server):
    """The SDK's vectors of the documents (3, D) and the query (D,)."""
    with Client(server.target) as client:
        return client.embed_documents(DOCUMENTS), client.embed_queries(QUERY)


def same(found, wanted):
    np.testing.assert_allclose(np.array(found, dtype=np.float32), wanted, atol=2e-6)


class TestLangChain:
    @pytest.fixture
    def embeddings(self, server):
        from polarvec.langchain import PolarvecEmbeddings

        embeddings = PolarvecEmbeddings(server.target)
        yield embeddings
        embeddings.close()

    def test_vectors_are_the_sdks(self, embeddings, expected):
        same(embeddings.embed_documents(DOCUMENTS), expected[0])
        same(embeddings.embed_query(QUERY), expected[1])
        assert type(embeddings.embed_query(QUERY)[0]) is float
        assert embeddings.embed_documents([]) == []

    async def test_asyncio_gives_the_same(self, embeddings, expected):
        documents, query, none = await asyncio.gather(
            embeddings.aembed_documents(DOCUMENTS), embeddings.aembed_query(QUERY), embeddings.aembed_documents([])
        )
        await embeddings.aclose()
        same(documents, expected[0])
        same(query, expected[1])
        assert none == []

    def test_each_event_loop_has_its_own_connection(self, embeddings, expected):
        for _ in range(3):
            same(asyncio.run(embeddings.aembed_query(QUERY)), expected[1])

    def test_a_vector_store_finds_the_answer(self, embeddings):
        from langchain_core.vectorstores import InMemoryVectorStore

        store = InMemoryVectorStore(embeddings)
        store.add_texts(DOCUMENTS)
        assert store.similarity_search(QUERY, k=1)[0].page_content == DOCUMENTS[1]
        retriever = store.as_retriever(search_kwargs={"k": 1})
        found = asyncio.run(retriever.ainvoke("대한민국의 수도는?"))
        assert [document.page_content for document in found] == [DOCUMENTS[0]]

    def test_options_reach_the_server(self, server, expected):
        from polarvec.langchain import PolarvecEmbeddings

        embeddings = PolarvecEmbeddings(server.target, dimensions=64, truncation="end")
        assert len(embeddings.embed_query("길다 " * 2000)) == 64
        embeddings.close()
        with pytest.raises(InvalidRequest, match="tokens"):
            PolarvecEmbeddings(server.target).embed_query("길다 " * 2000)


class TestLlamaIndex:
    @pytest.fixture
    def embedding(self, server):
        from polarvec.llama_index import PolarvecEmbedding

        return PolarvecEmbedding(server.target)

    def test_vectors_are_the_sdks(self, embedding, expected):
        same(embedding.get_text_embedding_batch(DOCUMENTS), expected[0])
        same(embedding.get_text_embedding(DOCUMENTS[0]), expected[0][0])
        same(embedding.get_query_embedding(QUERY), expected[1])

    @pytest.mark.parametrize("option", [{"dimension": 64}, {"model": "e5-small"}], ids=["dimension", "model"])
    def test_an_unknown_option_is_refused(self, option):
        from polarvec.llama_index import PolarvecEmbedding

        with pytest.raises(TypeError, match=f"no option {next(iter(option))};"):
            PolarvecEmbedding("127.0.0.1:1", **option)

    def test_batches_of_llama_index_change_nothing(self, server, expected):
        from polarvec.llama_index import PolarvecEmbedding

        embedding = PolarvecEmbedding(server.target, embed_batch_size=2)
        same(embedding.get_text_embedding_batch(DOCUMENTS), expected[0])
        same(asyncio.run(embedding.aget_text_embedding_batch(DOCUMENTS)), expected[0])

    def test_asyncio_gives_the_same(self, embedding, expected):
        async def all_calls():
            same(await embedding.aget_text_embedding(DOCUMENTS[0]), expected[0][0])
            same(await embedding.aget_query_embedding(QUERY), expected[1])

        for _ in range(2):
            asyncio.run(all_calls())

    def test_an_index_finds_the_answer(self, embedding):
        from llama_index.core import VectorStoreIndex
        from llama_index.core.schema import TextNode

        index = VectorStoreIndex([TextNode(text=text) for text in DOCUMENTS], embed_model=embedding)
        (found,) = index.as_retriever(similarity_top_k=1).retrieve(QUERY)
        assert found.text == DOCUMENTS[1]

    def test_it_is_stored_without_its_key(self, server, expected):
        from polarvec.llama_index import PolarvecEmbedding

        embedding = PolarvecEmbedding(server.target, api_key="secret-1", dimensions=64)
        assert "secret-1" not in embedding.to_json() + repr(embedding) + str(embedding.to_payload())
        again = PolarvecEmbedding.from_dict(embedding.to_dict())
        assert (again.target, again.dimensions, again.api_key) == (server.target, 64, None)
        assert len(again.get_query_embedding(QUERY)) == 64

    def test_copies_call_too(self, embedding, expected):
        embedding.get_query_embedding(QUERY)
        same(copy.deepcopy(embedding).get_query_embedding(QUERY), expected[1])
        same(pickle.loads(pickle.dumps(embedding)).get_query_embedding(QUERY), expected[1])


class TestHaystack:
    @pytest.fixture
    def documents(self):
        from haystack import Document

        return [Document(content=text, meta={"title": f"t{index}"}) for index, text in enumerate(DOCUMENTS)]

    def test_a_pipeline_finds_the_answer(self, server, documents, expected):
        from haystack import Pipeline
        from haystack.components.retrievers.in_memory import InMemoryEmbeddingRetriever
        from haystack.document_stores.in_memory import InMemoryDocumentStore
        from polarvec.haystack import PolarvecDocumentEmbedder, PolarvecTextEmbedder

        embedded = PolarvecDocumentEmbedder(server.target).run(documents)
        same([document.embedding for document in embedded["documents"]], expected[0])
        assert all(document.embedding is None for document in documents)
        store = InMemoryDocumentStore(embedding_similarity_function="cosine")
        store.write_documents(embedded["documents"])
        pipeline = Pipeline()
        pipeline.add_component("embedder", PolarvecTextEmbedder(server.target))
        pipeline.add_component("retriever", InMemoryEmbeddingRetriever(store, top_k=1))
        pipeline.connect("embedder.embedding", "retriever.query_embedding")
        # As a pipeline is deployed: written to YAML and read again.
        pipeline = Pipeline.loads(pipeline.dumps(), allowed_modules=["polarvec.haystack"])
        pipeline.get_component("retriever").document_store = store
        found = pipeline.run({"embedder": {"text": QUERY}}, include_outputs_from={"embedder"})
        assert found["retriever"]["documents"][0].content == DOCUMENTS[1]
        meta = found["embedder"]["meta"]
        with Client(server.target) as client:
            token_count = client.tokenize(QUERY, input_type="query").token_count
            assert (meta["model"], meta["fingerprint"]) == ("e5-small", client.model().fingerprint)
        assert meta["usage"] == {"prompt_tokens": token_count, "total_tokens": token_count}

    async def test_asyncio_gives_the_same(self, server, documents, expected):
        from polarvec.haystack import PolarvecDocumentEmbedder, PolarvecTextEmbedder

        text, many = PolarvecTextEmbedder(server.target), PolarvecDocumentEmbedder(server.target)
        same((await text.run_async(QUERY))["embedding"], expected[1])
        result = await many.run_async(documents)
        same([document.embedding for document in result["documents"]], expected[0])
        await text.close_async()
        await many.close_async()

    def test_chosen_metadata_goes_before_the_content(self, server, documents):
        from polarvec.haystack import PolarvecDocumentEmbedder

        embedder = PolarvecDocumentEmbedder(server.target, meta_fields_to_embed=["title", "absent"])
        with Client(server.target) as client:
            wanted = client.embed_documents([f"t{index}\n{text}" for index, text in enumerate(DOCUMENTS)])
        same([document.embedding for document in embedder.run(documents)["documents"]], wanted)
        embedder.close()
        assert embedder.run([]) == {"documents": [], "meta": {}}

    def test_components_are_stored_with_the_name_of_their_key(self, server):
        from haystack.utils import Secret
        from polarvec.haystack import PolarvecDocumentEmbedder

        embedder = PolarvecDocumentEmbedder(
            [server.target], dimensions=64, api_key=Secret.from_env_var("MY_KEY", strict=False), embedding_separator=" "
        )
        stored = embedder.to_dict()
        assert stored["type"] == "polarvec.haystack.PolarvecDocumentEmbedder"
        assert stored["init_parameters"]["api_key"]["env_vars"] == ["MY_KEY"]
        again = PolarvecDocumentEmbedder.from_dict(stored)
        assert again.to_dict() == stored
        assert (again.target, again.dimensions, again.embedding_separator) == ([server.target], 64, " ")

    def test_a_key_given_as_text_is_never_stored(self):
        from haystack.utils import Secret
        from polarvec.haystack import PolarvecTextEmbedder

        with pytest.raises(ValueError, match="token"):
            PolarvecTextEmbedder(api_key=Secret.from_token("secret-1")).to_dict()
        with pytest.raises(ValueError, match="paths of files"):
            PolarvecTextEmbedder(tls=Tls(ca=b"-----BEGIN CERTIFICATE-----")).to_dict()

    def test_paths_of_certificates_are_stored(self):
        from polarvec.haystack import PolarvecTextEmbedder

        embedder = PolarvecTextEmbedder(tls=Tls(ca=Path("ca.pem"), server_name="polarvec"))
        stored = embedder.to_dict()["init_parameters"]["tls"]
        assert stored == {"ca": "ca.pem", "certificate": None, "key": None, "server_name": "polarvec"}
        assert PolarvecTextEmbedder.from_dict(embedder.to_dict()).tls == Tls(ca="ca.pem", server_name="polarvec")

    def test_the_wrong_component_says_which_is_right(self, server, documents):
        from polarvec.haystack import PolarvecDocumentEmbedder, PolarvecTextEmbedder

        with pytest.raises(TypeError, match="PolarvecDocumentEmbedder takes a list"):
            PolarvecTextEmbedder(server.target).run(documents)
        with pytest.raises(TypeError, match="PolarvecTextEmbedder takes a str"):
            PolarvecDocumentEmbedder(server.target).run(QUERY)


@pytest.mark.parametrize(
    ("module", "package", "extra"),
    [
        ("langchain", "langchain_core", "langchain"),
        ("llama_index", "llama_index", "llama-index"),
        ("haystack", "haystack", "haystack"),
        ("mteb", "mteb", "mteb"),
    ],
)
def test_a_missing_extra_is_named(module, package, extra):
    code = f"import sys; sys.modules[{package!r}] = None; import polarvec.{module}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    sentence = f"ModuleNotFoundError: This module needs the package {package}; install the extra polarvec[{extra}]"
    assert done.stderr.splitlines()[-1] == sentence


def test_a_server_that_is_not_there_is_the_sdks_error():
    from polarvec.langchain import PolarvecEmbeddings

    with pytest.raises(Unavailable, match="cannot be reached"):
        PolarvecEmbeddings("127.0.0.1:1", timeout_s=2).embed_query("a")


async def test_clients_of_ended_loops_are_let_go(server):
    from polarvec._adapter_clients import AdapterClients

    clients = AdapterClients(server.target, api_key=None)
    await asyncio.to_thread(lambda: asyncio.run(_touch(clients)))
    here = clients.of_loop()
    assert isinstance(here, AsyncClient)
    assert list(clients._async_clients.values()) == [here]
    await clients.aclose()
    assert clients.of_loop() is not here
    await clients.aclose()


async def _touch(clients):
    assert await clients.of_loop().health()
