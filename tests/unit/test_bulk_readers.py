"""The readers of bulk jobs: which rows they give, what they call bad, and that they begin anywhere."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from polarvec import InvalidRequest
from polarvec.bulk._lines import MAX_LINE_BYTES
from polarvec.bulk._readers import open_reader

JSON_ROWS = [
    ('{"id": 1, "text": "하나"}', "하나"),
    ('{"text": "둘", "id": null}', "둘"),
    ("{nope", "INVALID_ROW"),
    ("", "INVALID_ROW"),
    ("[1]", "INVALID_ROW"),
    ('{"id": 3}', "INVALID_ROW"),
    ('{"text": 4}', "INVALID_ROW"),
    ('{"text": null}', "INVALID_ROW"),
    ('{"text": " \\n"}', "EMPTY_TEXT"),
    ('{"text": "a", "id": "\\ud800"}', "INVALID_TEXT"),
    ("[" * 100_000, "INVALID_ROW"),
    ('{"text": ' + "9" * 10_000 + "}", "INVALID_ROW"),
    ('{"text": "last"}', "last"),
]


def outcomes(path: Path, kind: str, *kept: str, start: int = 0) -> list[str]:
    """For each row its text, or the reason why it is bad; the numbers must be right."""
    reader = open_reader(path, kind, "text", kept)
    rows = list(reader.rows(start))
    reader.close()
    assert [row.number for row in rows] == list(range(start, start + len(rows)))
    return [row.text if row.problem is None else row.problem.reason for row in rows]


@pytest.mark.parametrize("start", range(len(JSON_ROWS) + 1))
def test_jsonl_rows_are_read_from_anywhere(tmp_path: Path, start: int) -> None:
    path = tmp_path / "in.jsonl"
    path.write_text("\n".join(line for line, _ in JSON_ROWS) + "\n", encoding="utf-8")
    assert outcomes(path, "jsonl", "id", start=start) == [outcome for _, outcome in JSON_ROWS[start:]]


def test_messages_name_the_row_and_not_its_text(tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    path.write_text("\n".join(line.replace("nope", "SECRET") for line, _ in JSON_ROWS), encoding="utf-8")
    reader = open_reader(path, "jsonl", "text")
    rows = list(reader.rows(0))
    reader.close()
    assert len(rows) == len(JSON_ROWS)
    for row in rows:
        if row.problem is not None:
            assert row.problem.message.startswith(f"row {row.number} ")
            assert "SECRET" not in row.problem.message


@pytest.mark.parametrize("kind", ["jsonl", "text"])
def test_lines_that_are_not_utf8_are_bad(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "in"
    path.write_bytes(b"\xef\xbb\xbf" + (b'{"text": "a"}' if kind == "jsonl" else b"a") + b"\n\xff\xfe\n")
    assert outcomes(path, kind) == ["a", "INVALID_TEXT"]


def test_blank_lines_at_the_end_of_jsonl_are_no_rows(tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    path.write_text('{"text": "a"}\n\n{"text": "b"}\n \n\n', encoding="utf-8")
    assert outcomes(path, "jsonl") == ["a", "INVALID_ROW", "b"]


def test_text_has_a_row_a_line(tmp_path: Path) -> None:
    path = tmp_path / "in.txt"
    path.write_bytes("하나\r\n\n  \n둘".encode())
    assert outcomes(path, "text") == ["하나", "EMPTY_TEXT", "EMPTY_TEXT", "둘"]


def test_a_line_without_end_is_one_bad_row(tmp_path: Path) -> None:
    path = tmp_path / "in.txt"
    path.write_bytes(b"a\n" + b"x" * (2 * MAX_LINE_BYTES + 5) + b"\nb\n")
    assert outcomes(path, "text") == ["a", "INVALID_ROW", "b"]


CSV = 'id,text\n1,하나\n\n2,"여러\n줄, ""따옴표"""\n3\n4,a,b\n5,\n6,끝\n'
CSV_OUTCOMES = ["하나", '여러\n줄, "따옴표"', "INVALID_ROW", "INVALID_ROW", "EMPTY_TEXT", "끝"]


@pytest.mark.parametrize("start", range(len(CSV_OUTCOMES) + 1))
@pytest.mark.parametrize("kind", ["csv", "tsv"])
def test_csv_rows_are_read_from_anywhere(tmp_path: Path, kind: str, start: int) -> None:
    path = tmp_path / "in"
    separated = CSV if kind == "csv" else CSV.replace(",", "\t").replace("줄\t", "줄,")
    path.write_text(separated, encoding="utf-8-sig", newline="")
    assert outcomes(path, kind, "id", start=start) == CSV_OUTCOMES[start:]


def test_csv_that_is_not_utf8_is_bad_row_by_row(tmp_path: Path) -> None:
    path = tmp_path / "in.csv"
    path.write_bytes("text,id\n가,1\n".encode() + "나,2\n".encode("euc-kr") + "다,3\n".encode())
    assert outcomes(path, "csv") == ["가", "INVALID_TEXT", "다"]


def test_a_csv_quote_without_end_does_not_read_without_end(tmp_path: Path) -> None:
    path = tmp_path / "in.csv"
    path.write_text('text\na\n"b\n' + "x" * 100 + "\n" * 3_000_000, encoding="utf-8")
    found = outcomes(path, "csv")
    assert found[:2] == ["a", "INVALID_ROW"]


def parquet(path: Path, *, row_group_size: int = 7) -> list[str]:
    texts = [None if index % 9 == 4 else "" if index % 9 == 5 else f"글 {index}" for index in range(40)]
    table = pa.table({"id": pa.array(range(40), pa.int16()), "text": texts, "price": [0.5] * 40})
    pq.write_table(table, path, row_group_size=row_group_size)
    return ["INVALID_ROW" if text is None else text or "EMPTY_TEXT" for text in texts]


@pytest.mark.parametrize("start", [0, 1, 6, 7, 8, 13, 14, 39, 40])
def test_parquet_rows_are_read_from_anywhere(tmp_path: Path, start: int) -> None:
    wanted = parquet(tmp_path / "in.parquet")
    assert outcomes(tmp_path / "in.parquet", "parquet", "id", start=start) == wanted[start:]


def test_an_empty_parquet_file_has_no_rows(tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": pa.array([], pa.string())}), tmp_path / "in.parquet")
    assert outcomes(tmp_path / "in.parquet", "parquet") == []


def test_parquet_reads_dictionaries_and_large_strings(tmp_path: Path) -> None:
    for name, column in {
        "d": pa.array(["a", "b"]).dictionary_encode(),
        "l": pa.array(["a", "b"], pa.large_string()),
    }.items():
        pq.write_table(pa.table({"text": column}), tmp_path / name)
        assert outcomes(tmp_path / name, "parquet") == ["a", "b"]


@pytest.mark.parametrize(
    ("kind", "content", "complaint"),
    [
        ("csv", b"a,b\n1,2\n", 'no column "text"; it has: a, b'),
        ("csv", b"text,text\n1,2\n", 'more than one column "text"'),
        ("csv", b"", "it has: nothing"),
        ("parquet", b"text\n", "is not a Parquet file"),
    ],
    ids=["missing", "twice", "empty", "other"],
)
def test_an_input_without_the_column_is_refused(tmp_path: Path, kind: str, content: bytes, complaint: str) -> None:
    (tmp_path / "in").write_bytes(content)
    with pytest.raises(InvalidRequest, match=complaint):
        open_reader(tmp_path / "in", kind, "text")


def test_a_parquet_column_of_numbers_is_refused(tmp_path: Path) -> None:
    parquet(tmp_path / "in.parquet")
    with pytest.raises(InvalidRequest, match=r'"price" of .* is of type double; choose one of strings'):
        open_reader(tmp_path / "in.parquet", "parquet", "price")


@pytest.mark.parametrize("kind", ["jsonl", "csv", "text", "parquet"])
def test_the_fraction_reaches_one(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "in"
    if kind == "parquet":
        parquet(path)
    else:
        line = json.dumps({"text": "a" * 200}) if kind == "jsonl" else "a" * 200
        path.write_text("text\n" * (kind == "csv") + f"{line}\n" * 100, encoding="utf-8")
    reader = open_reader(path, kind, "text")
    fractions = [reader.fraction() for _ in reader.rows(0)]
    assert fractions == sorted(fractions)
    assert 0 < fractions[0] < 0.6
    assert reader.fraction() == 1.0
    reader.close()
