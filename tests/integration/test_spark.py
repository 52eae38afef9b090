"""polarvec.spark on a local Spark against a real server."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator

import numpy as np
import pytest
from polarvec import Client, InvalidRequest
from server_process import ServerProcess

# Spark leaves the sockets of its Java gateway to the garbage collector, and uses what pandas is about to drop.
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning:pyspark"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]


@pytest.fixture(scope="module")
def session() -> Iterator[object]:
    if shutil.which("java") is None:
        pytest.skip("there is no java on PATH, and Spark runs on it")
    from pyspark.sql import SparkSession

    os.environ |= {"PYSPARK_PYTHON": sys.executable, "SPARK_LOCAL_IP": "127.0.0.1"}
    session = (
        SparkSession.builder.master("local[2]")
        .config("spark.ui.enabled", "false")
        .config("spark.driver.memory", "600m")
        .config("spark.sql.execution.arrow.maxRecordsPerBatch", "50")
        .getOrCreate()
    )
    yield session
    session.stop()


@pytest.mark.parametrize("encoding", ["float32", "int8", "binary"])
def test_partitions_are_embedded(session, tiny_server: ServerProcess, tiny_client: Client, encoding: str) -> None:
    from polarvec.spark import embed_partitions, embedded_schema

    texts = {index: f"문서 {index}" for index in range(120)} | {7: "", 8: None}
    frame = session.createDataFrame(list(texts.items()), "id long, body string")
    function = embed_partitions(
        [tiny_server.target], column="body", output_column="v", encoding=encoding, bad_rows="keep", max_in_flight=2
    )
    schema = embedded_schema(frame.schema, output_column="v", encoding=encoding, bad_rows="keep")
    rows = sorted(frame.mapInPandas(function, schema).collect(), key=lambda row: row["id"])
    assert [(row["id"], row["body"]) for row in rows] == sorted(texts.items())
    assert [row["id"] for row in rows if row["v_error"] is not None] == [7, 8]
    good = [row for row in rows if row["v_error"] is None]
    wanted = tiny_client.embed_documents([row["body"] for row in good], encoding=encoding)
    wanted = np.asarray(getattr(wanted, "values", wanted))
    found = np.array([np.frombuffer(row["v"], np.uint8) if encoding == "binary" else row["v"] for row in good])
    if encoding == "binary":
        assert np.unpackbits(found ^ wanted).mean() < 0.005
    else:
        np.testing.assert_allclose(found.astype(float), wanted, atol=2 if encoding == "int8" else 1e-3)
    if encoding == "int8":
        assert all(row["v_scale"] > 0 for row in good)


def test_a_bad_row_fails_the_task(session, tiny_server: ServerProcess) -> None:
    from polarvec.spark import embed_partitions, embedded_schema
    from pyspark.errors import PythonException

    frame = session.createDataFrame([("",)], "text string")
    with pytest.raises(PythonException, match="is empty"):
        frame.mapInPandas(embed_partitions(tiny_server.target), embedded_schema(frame.schema)).collect()


def test_a_wrong_column_and_an_encoding_without_a_type_are_named(session, tiny_server: ServerProcess) -> None:
    from polarvec.spark import embed_partitions, embedded_schema
    from pyspark.errors import PythonException

    frame = session.createDataFrame([("가",)], "text string")
    with pytest.raises(PythonException, match="There is no column 'nope'; there are: text"):
        frame.mapInPandas(embed_partitions(tiny_server.target, column="nope"), embedded_schema(frame.schema)).collect()
    for make in (
        lambda: embed_partitions(encoding="float16"),
        lambda: embedded_schema(frame.schema, encoding="float16"),
    ):
        with pytest.raises(InvalidRequest, match="float32, int8, binary"):
            make()
