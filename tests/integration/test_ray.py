"""polarvec.ray on a local Ray cluster against a real server."""

from __future__ import annotations

import os
import pickle
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from polarvec import Client, DeadlineExceeded, InvalidRequest, Unavailable
from server_process import ServerProcess, free_port

os.environ |= {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DISABLE_IMPORT_WARNING": "1",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}

# Ray, and what it brings, warn of their own futures and leave sockets to the garbage collector.
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

TEXTS = [f"문서 {index}: 서울에서 부산까지" for index in range(300)]


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    import ray

    # The workers import polarvec from where the tests do; nothing is reported anywhere.
    ray.init(
        num_cpus=2, include_dashboard=False, configure_logging=False, log_to_driver=False, object_store_memory=80 << 20
    )
    ray.data.DataContext.get_current().enable_progress_bars = False
    yield
    ray.shutdown()


@pytest.fixture
def embedder():
    from polarvec.ray import Embedder

    return Embedder


def test_actors_embed_a_dataset_on_many_servers(
    cluster, embedder, tiny_server: ServerProcess, tiny_client: Client
) -> None:
    import ray

    dataset = ray.data.from_items([{"id": index, "body": text} for index, text in enumerate(TEXTS)])
    rows = dataset.map_batches(
        embedder,
        fn_constructor_args=[[tiny_server.target, tiny_server.target.replace("127.0.0.1", "localhost")]],
        fn_constructor_kwargs={"column": "body"},
        concurrency=2,
        batch_size=64,
    ).take_all()
    rows.sort(key=lambda row: row["id"])
    assert [row["id"] for row in rows] == list(range(300))
    wanted = tiny_client.embed_documents([row["body"] for row in rows])
    found = np.stack([row["embedding"] for row in rows])
    assert found.dtype == np.float32
    assert (found * wanted).sum(axis=1).min() > 0.9999


def test_tasks_embed_into_parquet(cluster, embedder, tiny_server: ServerProcess, tmp_path: Path) -> None:
    import pyarrow.parquet as pq
    import ray

    dataset = ray.data.from_items([{"text": text} for text in [*TEXTS[:50], ""]])
    function = embedder(tiny_server.target, encoding="int8", bad_rows="keep")
    dataset.map_batches(function, batch_size=20, batch_format="pyarrow").write_parquet(str(tmp_path))
    table = pq.read_table(tmp_path)
    assert table.num_rows == 51
    for row in table.to_pylist():
        empty = row["text"] == ""
        assert row["embedding_error"] == ("EMPTY_TEXT" if empty else "")
        assert any(row["embedding"]) != empty
        assert (row["embedding_scale"] > 0) != empty


@pytest.mark.parametrize("kind", ["dict", "pandas", "arrow"])
@pytest.mark.parametrize("encoding", ["float32", "float16", "int8", "binary"])
def test_batches_keep_their_kind(
    embedder, tiny_server: ServerProcess, tiny_client: Client, kind: str, encoding: str
) -> None:
    texts, numbers = TEXTS[:5], np.arange(5)
    batch = {"dict": dict, "pandas": pd.DataFrame, "arrow": pa.table}[kind](
        {"text": np.array(texts, object) if kind != "arrow" else texts, "n": numbers}
    )
    found = pickle.loads(pickle.dumps(embedder(tiny_server.target, encoding=encoding)))(batch)
    assert type(found) is type(batch)
    columns = {name: found[name].to_pylist() if kind == "arrow" else list(found[name]) for name in ("n", "embedding")}
    assert columns["n"] == list(range(5))
    wanted = tiny_client.embed_documents(texts, encoding=encoding)
    wanted = np.asarray(getattr(wanted, "values", wanted))
    np.testing.assert_allclose(
        np.array(columns["embedding"], dtype=float), wanted, atol=2 if encoding == "int8" else 5e-3
    )
    assert ("embedding_scale" in (found.column_names if kind == "arrow" else found)) == (encoding == "int8")


def test_a_bad_row_ends_the_job_unless_it_is_kept(embedder, tiny_server: ServerProcess) -> None:
    batch = {"text": np.array(["a", None, "가나다 " * 3_000, "c"], dtype=object)}
    with pytest.raises(InvalidRequest, match=r'Row 1 of a batch is no text.*bad_rows="keep"'):
        embedder(tiny_server.target)(batch)
    found = embedder(tiny_server.target, bad_rows="keep", batch_size=2)(batch)
    assert list(found["embedding_error"]) == ["", "INVALID_ROW", "TEXT_TOO_LONG", ""]
    np.testing.assert_allclose(np.linalg.norm(found["embedding"], axis=1), [1, 0, 0, 1], atol=1e-5)


def test_another_embedding_space_is_refused(embedder, tiny_server: ServerProcess, tiny_client: Client) -> None:
    batch = {"text": np.array(["a"], dtype=object)}
    assert len(embedder(tiny_server.target, fingerprint=tiny_client.model().fingerprint)(batch)["embedding"]) == 1
    with pytest.raises(InvalidRequest, match="serve the same model everywhere"):
        embedder(tiny_server.target, fingerprint="0123")(batch)


def test_patience_ends(embedder) -> None:
    batch = {"text": np.array(["a"], dtype=object)}
    with pytest.raises((Unavailable, DeadlineExceeded)):
        embedder(f"127.0.0.1:{free_port()}", patience_s=0.0, timeout_s=0.5)(batch)
