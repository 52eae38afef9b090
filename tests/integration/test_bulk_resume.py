"""`polarvec embed` against a real server: kills lose no row and repeat none, and memory is bounded."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pyarrow.parquet as pq
import pytest
from polarvec import Client
from server_process import ServerProcess

# What `polarvec embed` runs, with commits so close together that every kill leaves something to go on from.
JOB = """
import sys
from polarvec import Client
from polarvec.bulk import embed_file
target, source, output, encoding, keep, batch_size = sys.argv[1:]
with Client(target) as client:
    embed_file(client, source, output, encoding=encoding, keep=[keep] if keep else [], truncation="end",
               commit_interval_s=0.02, batch_size=int(batch_size))
"""


def job(server: ServerProcess, source: Path, output: Path, encoding: str, keep: str, batch_size: int = 8) -> list[str]:
    return [sys.executable, "-c", JOB, server.target, str(source), str(output), encoding, keep, str(batch_size)]


def committed(output: Path) -> int:
    """Rows that the journal of an unfinished job vouches for; -1 when there is none."""
    try:
        return json.loads((output.with_name(f"{output.name}.partial") / "journal.json").read_text())["row_count"]
    except FileNotFoundError:
        return -1


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """6,000 rows, every 500th of them bad, in different ways."""
    path = tmp_path_factory.mktemp("bulk") / "in.jsonl"
    rows = [
        json.dumps({"id": f"id-{i}", "text": f"문서 {i} " + "가나다 " * (i % 7)}, ensure_ascii=False)
        for i in range(6_000)
    ]
    for index in range(0, 6_000, 500):
        rows[index] = ['{"text": ""}', "{", '{"id": 1}'][index // 500 % 3]
    path.write_text("\n".join(rows) + "\n", encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("ending", "encoding", "keep"), [("parquet", "float32", "id"), ("npy", "int8", ""), ("jsonl", "binary", "id")]
)
def test_a_job_that_is_killed_again_and_again_loses_and_repeats_nothing(
    tiny_server: ServerProcess, tiny_client: Client, source: Path, tmp_path: Path, ending: str, encoding: str, keep: str
) -> None:
    output, chance = tmp_path / f"out.{ending}", random.Random(ending)
    done = 0
    for _ in range(3):
        wanted = done + chance.randrange(200, 800)
        process = subprocess.Popen(job(tiny_server, source, output, encoding, keep))
        while process.poll() is None and committed(output) < wanted:
            time.sleep(0.002)
        process.kill()
        assert process.wait(20) == -signal.SIGKILL
        assert not output.exists()
        assert committed(output) >= wanted
        done = committed(output)
    assert done < 6_000
    subprocess.run(job(tiny_server, source, output, encoding, keep), check=True, timeout=60)
    check_rows(output, source, tiny_client, encoding)
    assert {path.name for path in tmp_path.iterdir()} - {"out.scales.npy"} == {
        output.name,
        f"{output.name}.errors.jsonl",
    }


def json_rows(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def check_rows(output: Path, source: Path, client: Client, encoding: str) -> None:
    """All good rows once, in order, with the vectors that the server gives for their texts."""
    errors = json_rows(output.with_name(f"{output.name}.errors.jsonl"))
    assert [error["row"] for error in errors] == list(range(0, 6_000, 500))
    good = [index for index in range(6_000) if index % 500]
    if output.suffix == ".npy":
        vectors, scales = np.load(output), np.load(output.with_name("out.scales.npy"))
        assert (vectors.shape[0], scales.shape) == (6_000, (6_000,))
        assert not vectors[::500].any()
        vectors, numbers = vectors[good], good
    elif output.suffix == ".parquet":
        table = pq.read_table(output)
        numbers, vectors = table["row"].to_pylist(), np.array(table["embedding"].to_pylist(), dtype=np.float32)
        assert table["id"].to_pylist() == [f"id-{index}" for index in good]
    else:
        rows = json_rows(output)
        numbers, vectors = [row["row"] for row in rows], np.array([row["embedding"] for row in rows], dtype=np.uint8)
        assert [row["id"] for row in rows] == [f"id-{index}" for index in good]
    assert numbers == good
    lines = source.read_text(encoding="utf-8").splitlines()
    texts = [json.loads(lines[index])["text"] for index in good]
    wanted = client.embed_documents(texts, encoding=encoding, truncation="end")
    wanted = np.asarray(getattr(wanted, "values", wanted))
    if encoding == "float32":
        assert (vectors * wanted).sum(axis=1).min() > 0.9999
    elif encoding == "int8":
        assert np.abs(vectors.astype(int) - wanted).max() <= 2  # Other batches, other roundings.
    else:
        assert np.unpackbits(vectors ^ wanted).mean() < 0.005


def test_memory_is_bounded(tiny_server: ServerProcess, tmp_path: Path) -> None:
    source = tmp_path / "in.jsonl"
    with source.open("w", encoding="utf-8") as file:
        for index in range(12_000):
            file.write(json.dumps({"text": f"{index}", "payload": "x" * 8_000}) + "\n")
    output = tmp_path / "out.parquet"
    # Slow enough to be looked at: what the process holds early on, and what it held at most, 60 MB of payload later.
    process = subprocess.Popen(job(tiny_server, source, output, "float32", "payload", 32))
    try:
        watch(process, output)
    finally:
        process.kill()
        process.wait(20)
    assert process.returncode == 0
    assert pq.ParquetFile(output).metadata.num_rows == 12_000


def watch(process: subprocess.Popen[bytes], output: Path) -> None:
    early, late = 0, []
    while process.poll() is None:
        try:
            rss = psutil.Process(process.pid).memory_info().rss
        except psutil.NoSuchProcess:
            break
        done = committed(output)
        if 0 <= done < 4_000:
            early = max(early, rss)
        elif 4_000 <= done < 12_000:  # The last step holds a row group besides.
            late.append(rss)
        time.sleep(0.02)
    assert early
    assert len(late) > 5
    assert max(late) - early < 30 << 20
