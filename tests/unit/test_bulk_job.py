"""Bulk jobs against a scripted server: formats, bad rows, outages, and going on after a kill at every step."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path

import grpc
import pyarrow.parquet as pq
import pytest
from polarvec import Client, InvalidRequest, ServerError, Unavailable
from polarvec.bulk import BulkProgress, embed_file
from polarvec.bulk._append_file import AppendFile
from polarvec.bulk._journal import Journal
from unit.bulk_files import check_output, read_errors, read_output, texts_of, write_jsonl
from unit.scripted_server import RunningServer, status

BAD_ROWS = (0, 7, 8, 9, 64, 199)


@pytest.fixture
def bulk_client(scripted: RunningServer) -> Iterator[Client]:
    with Client(scripted.target, timeout_s=0.5) as client:
        yield client


@pytest.mark.parametrize("encoding", ["float32", "float16", "int8", "binary"])
@pytest.mark.parametrize("ending", ["parquet", "npy", "jsonl"])
def test_every_row_comes_out_once_and_in_order(bulk_client: Client, tmp_path: Path, ending: str, encoding: str) -> None:
    texts = texts_of(200, BAD_ROWS)
    source, output = write_jsonl(tmp_path / "in.jsonl", texts), tmp_path / f"out.{ending}"
    id_field = None if ending == "npy" else "id"
    summary = embed_file(bulk_client, source, output, encoding=encoding, id_field=id_field)
    check_output(output, texts, encoding, bad=BAD_ROWS)
    assert (summary.row_count, summary.error_count, summary.fingerprint) == (200, len(BAD_ROWS), "f1")
    assert summary.token_count == sum(len(text) for index, text in enumerate(texts) if index not in BAD_ROWS)
    errors = read_errors(tmp_path / f"out.{ending}.errors.jsonl")
    assert [error["row"] for error in errors] == list(BAD_ROWS)
    assert errors[1] == {
        "row": 7,
        **({} if id_field is None else {"id": "id-7"}),
        "reason": "TEXT_TOO_LONG",
        "message": "row 7 is bad; make it good.",
    }
    left = {path.name for path in tmp_path.iterdir()} - {"out.scales.npy"}
    assert left == {"in.jsonl", output.name, f"{output.name}.errors.jsonl"}


def test_a_job_without_bad_rows_has_no_errors_file(bulk_client: Client, tmp_path: Path) -> None:
    (tmp_path / "out.npy.errors.jsonl").write_text("of an older job")
    source = write_jsonl(tmp_path / "in.jsonl", texts_of(5))
    assert embed_file(bulk_client, source, tmp_path / "out.npy").errors is None
    assert not (tmp_path / "out.npy.errors.jsonl").exists()


@pytest.mark.parametrize("ending", ["parquet", "npy", "jsonl"])
def test_an_empty_input_gives_an_empty_output(bulk_client: Client, tmp_path: Path, ending: str) -> None:
    (tmp_path / "in.jsonl").touch()
    assert embed_file(bulk_client, tmp_path / "in.jsonl", tmp_path / f"out.{ending}").row_count == 0
    assert read_output(tmp_path / f"out.{ending}").rows == []


def test_kept_columns_of_parquet_keep_their_types(bulk_client: Client, tmp_path: Path) -> None:
    import pyarrow as pa

    table = pa.table({"n": pa.array([1, None], pa.int16()), "text": ["a", "b"], "tags": [["x"], []]})
    pq.write_table(table, tmp_path / "in.parquet")
    embed_file(bulk_client, tmp_path / "in.parquet", tmp_path / "out.parquet", keep=["tags", "n", "text"])
    found = pq.read_table(tmp_path / "out.parquet")
    assert found.column_names == ["row", "tags", "n", "text", "token_count", "embedding"]
    assert found.select(["n", "text", "tags"]).to_pydict() == table.to_pydict()
    assert found.schema.field("n").type == pa.int16()
    assert found.schema.metadata[b"polarvec.fingerprint"] == b"f1"


def test_kept_json_values_are_strings_in_parquet(bulk_client: Client, tmp_path: Path) -> None:
    records = [{"text": "a", "v": value} for value in ("나", 1, None, {"k": [True]})]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    embed_file(bulk_client, tmp_path / "in.jsonl", tmp_path / "out.parquet", keep=["v"])
    assert pq.read_table(tmp_path / "out.parquet")["v"].to_pylist() == ["나", "1", None, '{"k": [true]}']


# Going on


class Killed(BaseException):
    """Stands for SIGKILL at one step."""


def kill_at(monkeypatch: pytest.MonkeyPatch, step: int) -> list[str]:
    """Ends the process at the n-th thing that it does to the disk, halfway where there is a half."""
    done: list[str] = []

    def stop(name: str) -> None:
        done.append(name)
        if len(done) == step:
            raise Killed

    def wrap(owner: type, name: str) -> None:
        original = getattr(owner, name)

        def wrapped(self, *arguments, **options):
            if name == "append" and len(done) == step - 1:
                original(self, arguments[0][: len(arguments[0]) // 2])
            stop(name)
            return original(self, *arguments, **options)

        monkeypatch.setattr(owner, name, wrapped)

    for owner, names in (
        (AppendFile, ("append", "sync")),
        (Path, ("replace", "unlink", "rmdir")),
        (Journal, ("save",)),
    ):
        for name in names:
            wrap(owner, name)
    return done


@pytest.mark.parametrize(("ending", "encoding"), [("parquet", "float32"), ("npy", "int8"), ("jsonl", "binary")])
def test_a_job_goes_on_after_a_kill_at_any_step(
    bulk_client: Client, tmp_path: Path, ending: str, encoding: str
) -> None:
    bad = (0, 3, 9)
    texts = texts_of(10, bad)
    source = write_jsonl(tmp_path / "in.jsonl", texts)

    def run(output: Path):
        return embed_file(bulk_client, source, output, encoding=encoding, batch_size=3, commit_interval_s=0.0)

    killed_count, finished = 0, False
    while not finished:
        output = tmp_path / str(killed_count) / f"out.{ending}"
        output.parent.mkdir()
        with pytest.MonkeyPatch.context() as patch:
            steps = kill_at(patch, killed_count + 1)
            try:
                run(output)
                finished = True
            except Killed:
                killed_count += 1
        if not finished:
            if (output.parent / f"{output.name}.partial" / "journal.json").exists():
                run(output)
            elif not output.exists():  # Killed before anything was done, or
                run(output)
            else:  # in the very last steps, when all is in its place.
                assert set(steps[-1:]) <= {"unlink", "rmdir"}
        check_output(output, texts, encoding, bad=bad)
        assert [error["row"] for error in read_errors(output.with_name(f"{output.name}.errors.jsonl"))] == list(bad)
    assert killed_count > 30


def test_what_is_committed_is_not_sent_again(bulk_client: Client, scripted: RunningServer, tmp_path: Path) -> None:
    texts = texts_of(600)
    source, output = write_jsonl(tmp_path / "in.jsonl", texts), tmp_path / "out.npy"
    scripted.servicer.break_stream_after.extend([9] + [0] * 40)
    with pytest.raises(Unavailable):
        embed_file(bulk_client, source, output, batch_size=32, commit_interval_s=0.02, patience_s=0.0)
    done = json.loads((tmp_path / "out.npy.partial" / "journal.json").read_text())["row_count"]
    assert 200 < done < 400
    scripted.servicer.break_stream_after.clear()
    before = scripted.servicer.items_read
    embed_file(bulk_client, source, output, batch_size=32)
    assert scripted.servicer.items_read - before == -(-(600 - done) // 32)
    check_output(output, texts, "float32")


def test_a_job_waits_for_a_server_that_is_away(tmp_path: Path, scripted: RunningServer) -> None:
    texts = texts_of(300)
    source = write_jsonl(tmp_path / "in.jsonl", texts)
    scripted.servicer.break_stream_after.extend([3] + [0] * 3)
    with Client(scripted.target, timeout_s=0.3) as client:  # Its own patience ends sooner than the breaks do.
        summary = embed_file(client, source, tmp_path / "out.jsonl", patience_s=60.0)
    assert summary.row_count == 300
    assert not scripted.servicer.break_stream_after
    check_output(tmp_path / "out.jsonl", texts, "float32")


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"encoding": "int8"}, "encoding: 'float32', now 'int8'"),
        ({"input_type": "query"}, "input_type: 'document', now 'query'"),
        ({"dimensions": 8}, "dimensions: 0, now 8"),
        ({"keep": ["id"]}, "kept: "),
        ({"field": "id"}, "field: 'text', now 'id'"),
        ({}, "the input has changed"),
    ],
    ids=lambda value: next(iter(value), "input") if isinstance(value, dict) else "",
)
def test_another_job_does_not_go_on_with_this_one(
    bulk_client: Client, scripted: RunningServer, tmp_path: Path, change: dict, complaint: str
) -> None:
    source, output = write_jsonl(tmp_path / "in.jsonl", texts_of(200)), tmp_path / "out.parquet"
    scripted.servicer.break_stream_after.extend([4] + [0] * 40)
    with pytest.raises(Unavailable):
        embed_file(bulk_client, source, output, patience_s=0.0)
    if not change:
        source = write_jsonl(source, [*texts_of(199), "글 xxx"])
    scripted.servicer.break_stream_after.clear()
    with pytest.raises(InvalidRequest, match=complaint) as refused:
        embed_file(bulk_client, source, output, **change)
    assert "--restart" in refused.value.message
    assert embed_file(bulk_client, source, output, restart=True, **change).row_count == 200


def test_another_model_does_not_go_on(bulk_client: Client, scripted: RunningServer, tmp_path: Path) -> None:
    source, output = write_jsonl(tmp_path / "in.jsonl", texts_of(200)), tmp_path / "out.npy"

    def other(response) -> None:
        response.fingerprint = "f2"

    scripted.servicer.break_stream_after.extend([4] + [0] * 40)
    with pytest.raises(Unavailable):
        embed_file(bulk_client, source, output, patience_s=0.0)
    scripted.servicer.break_stream_after.clear()
    scripted.servicer.change = other
    with pytest.raises(ServerError, match="model changed"):
        embed_file(bulk_client, source, output)
    journal = tmp_path / "out.npy.partial" / "journal.json"
    journal.write_text(journal.read_text().replace('"f1"', '"f0"'))
    with pytest.raises(InvalidRequest, match=r"model: tiny \(f0\), now tiny \(f1\)"):
        embed_file(bulk_client, source, output)


def test_lost_bytes_are_noticed(bulk_client: Client, scripted: RunningServer, tmp_path: Path) -> None:
    source, output = write_jsonl(tmp_path / "in.jsonl", texts_of(200)), tmp_path / "out.jsonl"
    scripted.servicer.break_stream_after.extend([4] + [0] * 40)
    with pytest.raises(Unavailable):
        embed_file(bulk_client, source, output, patience_s=0.0)
    with (tmp_path / "out.jsonl.partial" / "rows.jsonl").open("r+b") as spool:
        spool.truncate(10)
    scripted.servicer.break_stream_after.clear()
    with pytest.raises(InvalidRequest, match="has lost"):
        embed_file(bulk_client, source, output)


def test_an_output_that_is_there_is_replaced_only_on_request(bulk_client: Client, tmp_path: Path) -> None:
    source, output = write_jsonl(tmp_path / "in.jsonl", texts_of(5)), tmp_path / "out.jsonl"
    output.write_text("precious")
    with pytest.raises(InvalidRequest, match="is there already"):
        embed_file(bulk_client, source, output)
    assert output.read_text() == "precious"
    embed_file(bulk_client, source, output, restart=True)
    check_output(output, texts_of(5), "float32")


def test_two_jobs_cannot_write_one_output(bulk_client: Client, scripted: RunningServer, tmp_path: Path) -> None:
    source, output = write_jsonl(tmp_path / "in.jsonl", texts_of(50)), tmp_path / "out.jsonl"
    begun, go_on = threading.Event(), threading.Event()

    def hold(_: BulkProgress) -> None:
        begun.set()
        assert go_on.wait(20)

    first = threading.Thread(target=lambda: embed_file(bulk_client, source, output, on_progress=hold))
    first.start()
    assert begun.wait(20)
    try:
        for restart in (False, True):
            with pytest.raises(InvalidRequest, match="Another process is writing"):
                embed_file(bulk_client, source, output, restart=restart)
    finally:
        go_on.set()
        first.join(20)
    check_output(output, texts_of(50), "float32")


# Bad rows and bad servers


def test_the_wrong_field_is_noticed_early(bulk_client: Client, tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "in.jsonl", texts_of(5_000))
    with pytest.raises(InvalidRequest, match=r'None of the first 1000 rows .* has no field "txt"'):
        embed_file(bulk_client, source, tmp_path / "out.jsonl", field="txt")


def test_a_text_without_a_finite_vector_spoils_no_other(
    bulk_client: Client, scripted: RunningServer, tmp_path: Path
) -> None:
    texts = texts_of(70)
    source = write_jsonl(tmp_path / "in.jsonl", texts)
    # The first item of 32 texts fails as a whole; of its texts, sent again one by one, the first fails.
    fault = status(grpc.StatusCode.INTERNAL, "NON_FINITE", message="Not finite.")
    scripted.servicer.item_faults.extend([fault, fault])
    summary = embed_file(bulk_client, source, tmp_path / "out.jsonl", batch_size=70)
    assert summary.error_count == 1
    (error,) = read_errors(tmp_path / "out.jsonl.errors.jsonl")
    assert error["reason"] == "NON_FINITE"
    check_output(tmp_path / "out.jsonl", texts, "float32", bad=[int(str(error["row"]))])


def test_a_failed_server_ends_the_job_and_no_row(bulk_client: Client, scripted: RunningServer, tmp_path: Path) -> None:
    source, output = write_jsonl(tmp_path / "in.jsonl", texts_of(100)), tmp_path / "out.jsonl"
    scripted.servicer.item_faults.append(status(grpc.StatusCode.INTERNAL, message="Broken."))
    with pytest.raises(ServerError, match="Broken"):
        embed_file(bulk_client, source, output)
    assert not output.exists()
    embed_file(bulk_client, source, output)
    check_output(output, texts_of(100), "float32")


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"input": "in.jsonl.gz"}, "unpack it first with gunzip"),
        ({"output": "out.xlsx"}, "ends in none of .parquet"),
        ({"input_format": "xml"}, "'xml' is not known; give one of jsonl"),
        ({"output": "no/such/out.npy"}, "is a folder or lies in none"),
        ({"output": "in.jsonl"}, "would replace the input"),
        ({"output": "out.npy", "keep": ["id"]}, "npy file holds no columns"),
        ({"input_format": "text", "keep": ["id"]}, "Plain text has no columns"),
        ({"keep": ["embedding"]}, "cannot be kept"),
        ({"input_type": "passage"}, "input_type is 'passage'"),
        ({"truncation": "middle"}, "truncation is 'middle'"),
        ({"input_format": "parquet", "input": "-"}, "Parquet cannot be read from standard input"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_what_cannot_work_is_refused_before_anything_is_written(
    bulk_client: Client, tmp_path: Path, options: dict, complaint: str
) -> None:
    write_jsonl(tmp_path / "in.jsonl", texts_of(3))
    source = options.get("input", tmp_path / "in.jsonl")
    rest = {name: value for name, value in options.items() if name not in ("input", "output")}
    with pytest.raises(InvalidRequest, match=complaint):
        embed_file(bulk_client, source, tmp_path / options.get("output", "out.jsonl"), **rest)
    assert [path.name for path in tmp_path.iterdir()] == ["in.jsonl"]


# Bounds


def test_the_input_is_read_only_a_window_ahead(bulk_client: Client, tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "in.jsonl", texts_of(4_000))
    size, ahead = source.stat().st_size, []

    def compare(progress: BulkProgress) -> None:
        assert progress.fraction is not None
        ahead.append(progress.fraction * 4_000 - progress.row_count)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("polarvec.bulk._job._PROGRESS_INTERVAL_S", 0.0)
        embed_file(bulk_client, source, tmp_path / "out.npy", batch_size=8, on_progress=compare)
    assert len(ahead) > 1_000
    assert size > 100_000
    assert max(ahead) < 400  # 8 texts an item, 4 items a call, 4 calls, and rows of different lengths.


def test_progress_tells_rate_and_time_left(bulk_client: Client, scripted: RunningServer, tmp_path: Path) -> None:
    scripted.servicer.delay_s = 0.1
    source, seen = write_jsonl(tmp_path / "in.jsonl", texts_of(3_000)), []
    embed_file(bulk_client, source, tmp_path / "out.npy", batch_size=32, on_progress=seen.append)
    assert seen[0].row_count == 0
    assert (seen[-1].row_count, seen[-1].fraction, seen[-1].seconds_left) == (3_000, 1.0, 0.0)
    middle = [progress for progress in seen if 0 < progress.row_count < 3_000]
    assert middle
    for progress in middle:
        assert progress.rows_per_s > 0
        assert progress.seconds_left is not None and progress.seconds_left > 0
