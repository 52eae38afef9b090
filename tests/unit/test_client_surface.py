"""What the package shows: names, signatures, types; and the calls beside embedding."""

from __future__ import annotations

import asyncio
import inspect
import pickle
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from types import ModuleType
from typing import Any

import numpy as np
import polarvec
import pytest
from polarvec import Limits, NotFound, TokenizedText, _channel
from polarvec._channel import Rpc
from polarvec_proto.v1 import embedding_pb2 as pb
from unit.scripted_server import RunningServer, vector

TEXTS = [f"글 {number}" for number in range(8)]


def public(kind: type) -> list[str]:
    return [name for name in vars(kind) if not name.startswith("_")]


def test_both_clients_have_the_same_methods_in_the_same_order() -> None:
    assert public(polarvec.Client) == public(polarvec.AsyncClient)


@pytest.mark.parametrize("name", ["__init__", *public(polarvec.Client)])
def test_signatures_of_both_clients_are_equal(name: str) -> None:
    blocking = inspect.signature(getattr(polarvec.Client, name))
    awaited = inspect.signature(getattr(polarvec.AsyncClient, name))
    if name == "embed_stream":
        assert list(blocking.parameters) == list(awaited.parameters)
        blocking = blocking.replace(return_annotation="")
        awaited = awaited.replace(return_annotation="")
        texts = blocking.parameters["texts"]
        assert awaited.parameters["texts"].annotation == f"{texts.annotation} | AsyncIterable[str]"
        awaited = awaited.replace(
            parameters=[texts if key == "texts" else value for key, value in awaited.parameters.items()]
        )
    assert blocking == awaited
    assert inspect.getdoc(getattr(polarvec.Client, name)) == inspect.getdoc(getattr(polarvec.AsyncClient, name))


def test_every_rpc_of_the_proto_is_in_the_table_and_every_row_has_its_messages() -> None:
    service = pb.DESCRIPTOR.services_by_name["EmbeddingService"]
    table = {row.path: row for row in vars(_channel).values() if isinstance(row, Rpc)}
    table.pop("/grpc.health.v1.Health/Check")
    assert set(table) == {f"/{service.full_name}/{method.name}" for method in service.methods}
    for method in service.methods:
        row = table[f"/{service.full_name}/{method.name}"]
        request = getattr(pb, method.input_type.name)()
        assert row.serialize(request) == b""
        assert type(row.parse(b"")).DESCRIPTOR is method.output_type


def test_every_rpc_has_a_method(client: Any, scripted: RunningServer) -> None:
    calls = {
        "Embed": lambda: client.embed("a", input_type="raw"),
        "EmbedStream": lambda: list(client.embed_stream(["a"], input_type="raw")),
        "Rank": lambda: client.rank("a", ["b"]),
        "Tokenize": lambda: client.tokenize("a", input_type="raw"),
        "ListModels": lambda: client.models(),
        "GetModel": lambda: client.model(),
    }
    assert set(calls) == {method.name for method in pb.DESCRIPTOR.services_by_name["EmbeddingService"].methods}
    for rpc, call in calls.items():
        call()
        assert scripted.servicer.count(rpc) > 0, rpc


def test_all_is_exact() -> None:
    # Modules apart: polarvec.bulk and the adapters are there once somebody has imported them.
    public = {name for name, value in vars(polarvec).items() if not isinstance(value, ModuleType)}
    names = {name for name in public if not name.startswith("_")} | {"__version__"}
    assert set(polarvec.__all__) == names
    assert len(polarvec.__all__) == len(names)


def test_version_is_the_wheels() -> None:
    assert polarvec.__version__ == version("polarvec")


def imported_by(statement: str) -> set[str]:
    """The packages beside the standard library that a statement brings in, in a fresh interpreter."""
    code = f"import sys; old = set(sys.modules); {statement}; print(*set(sys.modules) - old)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return {name.partition(".")[0] for name in result.stdout.split()} - sys.stdlib_module_names


def test_import_brings_four_packages_and_what_they_bring() -> None:
    theirs = imported_by("import grpc, grpc.aio, google.protobuf, numpy")
    assert {"grpc", "google", "numpy"} <= theirs
    assert imported_by("import polarvec") - theirs == {"polarvec", "polarvec_proto"}


def test_rank_gives_the_best_first(client: Any) -> None:
    queries, documents = TEXTS[:2], TEXTS[2:]
    rankings = client.rank(queries, documents)
    for query, ranking in zip(queries, rankings, strict=True):
        scores = np.stack([vector(text) for text in documents]) @ vector(query)
        assert ranking.document_indexes.tolist() == np.argsort(-scores).tolist()
        np.testing.assert_allclose(ranking.scores, np.sort(scores)[::-1], rtol=1e-6)
    single = client.rank(queries[0], documents, top_k=3)
    assert len(single) == 3
    assert list(single) == list(rankings[0])[:3]


def test_rank_options_arrive(client: Any, scripted: RunningServer) -> None:
    client.rank("q", ["d"], top_k=1, model="tiny", dimensions=8, truncation="end", priority="bulk")
    assert scripted.servicer.seen[-1].request == pb.RankRequest(
        model="tiny",
        queries=["q"],
        documents=["d"],
        top_k=1,
        truncation=pb.TRUNCATION_END,
        dimensions=8,
        priority=pb.PRIORITY_BULK,
    )


@pytest.mark.parametrize(
    ("queries", "documents", "error", "complaint"),
    [
        ([], ["d"], polarvec.InvalidRequest, "queries is empty"),
        ("q", [], polarvec.InvalidRequest, "documents is empty"),
        ("q", ["d", 1], TypeError, r"documents\[1\] is of type int"),
        ("q", ["d", "\ud800"], polarvec.InvalidRequest, r"documents\[1\] has a lone surrogate"),
    ],
)
def test_rank_refuses_wrong_texts(
    client: Any, queries: Any, documents: Any, error: type[Exception], complaint: str
) -> None:
    with pytest.raises(error, match=complaint):
        client.rank(queries, documents)


def test_tokenize_gives_counts_and_ids_on_request(client: Any) -> None:
    assert client.tokenize("가나", input_type="query") == TokenizedText(token_count=2, too_long=False)
    (result,) = client.tokenize(["가" * 65], input_type="query", include_ids=True)
    assert (result.token_count, result.too_long, result.token_ids[0]) == (65, True, ord("가"))


def test_models_are_plain_data(client: Any, scripted: RunningServer) -> None:
    scripted.servicer.limits.CopyFrom(
        pb.Limits(max_text_count=1, max_token_count=2, max_request_bytes=3, max_text_bytes=4)
    )
    (model,) = client.models()
    assert model == client.model() == client.model("tiny")
    assert (model.id, model.architecture, model.pooling, model.trained_dimensions) == (
        "tiny",
        "XLMRobertaModel",
        "mean",
        (8,),
    )
    assert model.limits == Limits(1, 2, 3, 4)
    assert dict(model.prompts) == {"query": "query: "}
    with pytest.raises(NotFound):
        client.model("other")


def test_health_follows_the_server(client: Any, scripted: RunningServer) -> None:
    assert client.health() is True
    scripted.set_health("tiny", serving=False)
    assert client.health("tiny") is False
    scripted.set_health("tiny", serving=True)
    assert client.health("tiny") is True
    with pytest.raises(NotFound):
        client.health("other")


def test_models_travel_between_processes(client: Any) -> None:
    model = client.model()
    assert pickle.loads(pickle.dumps(model)) == model


def test_threads_share_a_client(scripted: RunningServer) -> None:
    scripted.servicer.limits.max_text_count = 3
    with polarvec.Client(scripted.target) as client, ThreadPoolExecutor(16) as pool:
        barrier = threading.Barrier(16)

        def work(worker: int) -> bool:
            texts = [f"{worker} {number}" for number in range(8)]
            barrier.wait()
            embeddings = client.embed_documents(texts)
            items = client.embed_stream(texts, input_type="document", batch_size=3)
            expected = np.stack([vector(text) for text in texts])
            streamed = np.stack([np.asarray(item.embedding) for item in items])
            return np.array_equal(embeddings, expected) and np.array_equal(streamed, expected)

        assert all(pool.map(work, range(16)))


async def test_tasks_share_a_client(scripted: RunningServer) -> None:
    scripted.servicer.limits.max_text_count = 3
    async with polarvec.AsyncClient(scripted.target) as client:
        texts = [[f"{task} {number}" for number in range(8)] for task in range(16)]
        results = await asyncio.gather(*map(client.embed_documents, texts))
    for own, embeddings in zip(texts, results, strict=True):
        np.testing.assert_array_equal(embeddings, np.stack([vector(text) for text in own]))


async def test_cancelled_task_ends_its_calls_and_stays_cancelled(scripted: RunningServer) -> None:
    scripted.servicer.delay_s = 5
    async with polarvec.AsyncClient(scripted.target) as client:
        task = asyncio.create_task(client.embed_queries("a"))
        while not scripted.servicer.in_flight:
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        for _ in range(200):
            if not scripted.servicer.in_flight:
                return
            await asyncio.sleep(0.01)
        pytest.fail("the server still works for a caller who has gone")


def test_async_client_refuses_another_loop(scripted: RunningServer) -> None:
    client = polarvec.AsyncClient(scripted.target)
    with asyncio.Runner() as first:
        first.run(client.embed_queries("a"))
        with asyncio.Runner() as second, pytest.raises(RuntimeError, match="another event loop"):
            second.run(client.embed_queries("a"))
        first.run(client.close())


def test_clients_connect_at_the_first_call(make_client: Any) -> None:
    client = make_client("no-such-host.invalid:1")
    client.close()


def test_tls_credentials_are_used(make_client: Any, scripted: RunningServer) -> None:
    import grpc

    client = make_client(scripted.target, credentials=grpc.ssl_channel_credentials(), timeout_s=5)
    with pytest.raises(polarvec.Unavailable):  # The scripted server speaks plain text.
        client.embed_queries("a")
    assert scripted.servicer.seen == []
