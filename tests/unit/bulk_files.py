"""Inputs of bulk jobs, and what came out of them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from unit.scripted_server import BAD, DIMENSIONS, encode, vector

ENCODINGS = {"float32": 1, "float16": 2, "int8": 3, "binary": 4}


def texts_of(count: int, bad: Sequence[int] = ()) -> list[str]:
    return [f"{BAD} {index}" if index in bad else f"글 {index}" for index in range(count)]


def write_jsonl(path: Path, texts: Sequence[str]) -> Path:
    lines = (json.dumps({"id": f"id-{index}", "text": text}, ensure_ascii=False) for index, text in enumerate(texts))
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


@dataclass
class Output:
    """Rows of an output, whatever its format."""

    rows: list[int]
    vectors: np.ndarray
    scales: np.ndarray | None
    ids: list[str] | None


def read_output(path: Path) -> Output:
    if path.suffix == ".npy":
        vectors, scales = np.load(path), path.with_name(f"{path.stem}.scales.npy")
        return Output(list(range(len(vectors))), vectors, np.load(scales) if scales.exists() else None, None)
    if path.suffix == ".parquet":
        columns = pq.read_table(path).to_pydict()
    else:
        records = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        columns = {name: [record[name] for record in records] for name in (records[0] if records else {"row": 0})}
    scales = np.array(columns["scale"]) if "scale" in columns else None
    return Output(columns["row"], np.array(columns.get("embedding", [])), scales, columns.get("id"))


def check_output(path: Path, texts: Sequence[str], encoding: str, *, bad: Sequence[int] = ()) -> None:
    """Every good row is there once, in order, with its own vector; .npy has zeros for the bad ones."""
    found = read_output(path)
    good = [index for index in range(len(texts)) if index not in set(bad)]
    assert found.rows == (list(range(len(texts))) if path.suffix == ".npy" else good)
    if found.ids is not None:
        assert found.ids == [f"id-{index}" for index in good]
    data, scales = encode(np.stack([vector(texts[index]) for index in good]), ENCODINGS[encoding])
    kinds = {"float32": "<f4", "float16": "<f2", "int8": "i1", "binary": "u1"}
    wanted = np.frombuffer(data, dtype=kinds[encoding]).reshape(len(good), -1)
    kept = good if path.suffix == ".npy" else slice(None)
    np.testing.assert_array_equal(found.vectors[kept].astype(wanted.dtype), wanted)
    assert (found.scales is not None) == (encoding == "int8")
    if found.scales is not None:
        np.testing.assert_allclose(found.scales[kept], scales, rtol=1e-6)
    if path.suffix == ".npy" and bad:
        assert not found.vectors[list(bad)].any()
    assert found.vectors.shape[1] == (DIMENSIONS // 8 if encoding == "binary" else DIMENSIONS)


def read_errors(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
