"""`polarvec embed`: files, a few texts, what it prints, and its exit codes."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import grpc
import numpy as np
import pytest
from polarvec._bulk_display import _duration
from polarvec._embed_command import embed
from typer import Typer
from typer.testing import CliRunner, Result
from unit.bulk_files import check_output, read_errors, texts_of, write_jsonl
from unit.scripted_server import RunningServer, status, vector


@pytest.fixture
def run(scripted: RunningServer):
    """Runs the command in this process, with the scripted server in the environment."""
    app = Typer()
    app.command()(embed)

    def invoke(*arguments: object, stdin: str | bytes | None = None) -> Result:
        return CliRunner().invoke(app, [*map(str, arguments)], input=stdin, env={"POLARVEC_TARGET": scripted.target})

    return invoke


def test_a_file_becomes_a_file(run, tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "in.jsonl", texts_of(40))
    result = run(source, tmp_path / "out.parquet", "--id-field", "id", "--encoding", "int8")
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout.startswith(f"40 vectors in {tmp_path / 'out.parquet'}, ")
    assert "fingerprint f1" in result.stdout
    check_output(tmp_path / "out.parquet", texts_of(40), "int8")


def test_documents_are_the_default_of_files_only(run, scripted: RunningServer, tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "in.jsonl", texts_of(3))
    assert run(source, tmp_path / "out.npy").exit_code == 0
    assert "'document'" not in run(source, tmp_path / "out.npy", "--restart", "--input-type", "query").stderr
    assert "--input-type" in run(source).stderr


def test_bad_rows_are_exit_code_3(run, tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "in.jsonl", texts_of(40, [5]))
    result = run(source, tmp_path / "out.jsonl", "--errors", tmp_path / "bad.jsonl", "--json")
    assert result.exit_code == 3
    summary = json.loads(result.stdout)
    assert (summary["row_count"], summary["error_count"]) == (40, 1)
    assert [error["row"] for error in read_errors(tmp_path / "bad.jsonl")] == [5]


def test_a_failed_server_is_exit_code_1_and_the_job_goes_on(run, scripted: RunningServer, tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "in.jsonl", texts_of(40))
    scripted.servicer.item_faults.append(status(grpc.StatusCode.INTERNAL, message="Broken; mend it."))
    result = run(source, tmp_path / "out.npy")
    assert result.exit_code == 1
    # Not all of stderr: the server of this process may log there that the client has left.
    assert "polarvec: Broken; mend it.\n" in result.stderr
    assert run(source, tmp_path / "out.npy").exit_code == 0
    check_output(tmp_path / "out.npy", texts_of(40), "float32")


def test_stdin_becomes_a_file(run, tmp_path: Path) -> None:
    assert run("-", tmp_path / "out.npy", stdin="글 0\n글 1\n").exit_code == 0
    check_output(tmp_path / "out.npy", texts_of(2), "float32")


def test_csv_comes_in_and_columns_go_along(run, tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text('no,body,lang\n1,"하나, 둘",ko\n2,two,en\n', encoding="utf-8")
    output = tmp_path / "out.jsonl"
    assert run(tmp_path / "in.csv", output, "--field", "body", "--keep", "lang", "--keep", "no").exit_code == 0
    rows = [json.loads(line) for line in output.read_text(encoding="utf-8").splitlines()]
    assert [(row["lang"], row["no"]) for row in rows] == [("ko", "1"), ("en", "2")]
    np.testing.assert_allclose(rows[0]["embedding"], vector("하나, 둘"), rtol=1e-6)


@pytest.mark.parametrize("interval_s", [0.0, 1e9], ids=["long", "short"])
def test_a_log_gets_lines_of_progress_from_a_long_job(
    run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, interval_s: float
) -> None:
    monkeypatch.setattr("polarvec._bulk_display._LINE_INTERVAL_S", interval_s)
    source = write_jsonl(tmp_path / "in.jsonl", texts_of(40, [5]))
    lines = run(source, tmp_path / "out.npy").stderr.splitlines()
    assert bool(lines) == (interval_s == 0.0)
    if lines:
        assert re.fullmatch(r"polarvec: 40 rows \(100\.0%\), [\d,]+ rows/s, 1 bad, 0 s left", lines[-1])
    assert run(source, tmp_path / "quiet.npy", "--quiet").stderr == ""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no pseudo-terminals")
def test_a_terminal_gets_a_bar(scripted: RunningServer, tmp_path: Path) -> None:
    import pty

    scripted.servicer.delay_s = 0.1
    source = write_jsonl(tmp_path / "in.jsonl", texts_of(3_000))
    ours, theirs = pty.openpty()
    command = [
        sys.executable,
        "-m",
        "polarvec._cli",
        "embed",
        source,
        tmp_path / "out.npy",
        "--target",
        scripted.target,
    ]
    process = subprocess.Popen(command, stderr=theirs, env={**os.environ, "TERM": "xterm", "COLUMNS": "120"})
    os.close(theirs)
    shown = b""
    try:
        while piece := os.read(ours, 65_536):
            shown += piece
    except OSError:  # Linux says so that the other end is closed.
        pass
    os.close(ours)
    assert process.wait(20) == 0
    assert re.search(r"\d\.\d%.*[\d,]+ rows, .*[\d,]+ rows/s, .*\d+ s left", shown.decode().replace("\x1b[0m", ""))


def test_an_interrupted_job_goes_on(scripted: RunningServer, tmp_path: Path) -> None:
    scripted.servicer.delay_s = 0.1
    source, output = write_jsonl(tmp_path / "in.jsonl", texts_of(3_000)), tmp_path / "out.npy"
    command = [sys.executable, "-m", "polarvec._cli", "embed", source, output, "--target", scripted.target]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    while scripted.servicer.items_read < 10:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=20)
    assert process.returncode == 130
    assert said == "polarvec: Interrupted; a job that writes a file goes on when the same command runs again.\n"
    scripted.servicer.delay_s = 0.0
    assert subprocess.run(command, check=False).returncode == 0
    check_output(output, texts_of(3_000), "float32")


# Without OUTPUT


def test_texts_are_shown_as_a_table(run) -> None:
    result = run("--text", "서울은 어디?", "--text", "[bold]markup[/bold]", "--input-type", "query")
    assert result.exit_code == 0
    assert "서울은 어디?" in result.stdout
    assert "[bold]markup[/bold]" in result.stdout
    assert f"{vector('서울은 어디?')[0]:+.4f}" in result.stdout
    assert "fingerprint f1" in result.stdout


@pytest.mark.parametrize("source", ["texts", "file", "stdin", "dash"])
def test_json_lines_have_all_numbers(run, tmp_path: Path, source: str) -> None:
    (tmp_path / "in.txt").write_text("하나\n둘\n", encoding="utf-8")
    given = {"texts": ["--text", "하나", "--text", "둘"], "file": [tmp_path / "in.txt"], "stdin": [], "dash": ["-"]}
    result = run(*given[source], "--input-type", "document", "--json", stdin="하나\n둘\n")
    rows = [json.loads(line) for line in result.stdout.splitlines()]
    assert [row["index"] for row in rows] == [0, 1]
    np.testing.assert_allclose([row["embedding"] for row in rows], [vector("하나"), vector("둘")], rtol=1e-6)


def test_json_goes_on_after_bad_rows(run) -> None:
    result = run("--input-type", "raw", "--json", stdin="a\nBAD\n\nd\n")
    assert [json.loads(line)["index"] for line in result.stdout.splitlines()] == [0, 3]
    complaints = ["polarvec: row 1 is bad; make it good.", "polarvec: row 2 is empty or only white space."]
    assert sorted(result.stderr.splitlines()) == complaints
    assert result.exit_code == 2


def test_npy_is_written(run, tmp_path: Path) -> None:
    path = tmp_path / "out.npy"
    assert run("--input-type", "raw", "--npy", path, stdin="a\nb\n").exit_code == 0
    np.testing.assert_array_equal(np.load(path), [vector("a"), vector("b")])


@pytest.mark.parametrize(
    ("arguments", "stdin", "complaint"),
    [
        (["--text", "a"], None, "--input-type"),
        (["--text", "a", "--input-type", "passage"], None, "passage"),
        (["--input-type", "raw"], "", "texts is empty"),
        (["--input-type", "raw"], "a\n\n", "row 1 is empty"),
        (["--input-type", "raw"], b"\xff\xfe\n", "not UTF-8"),
        (["--text", "a", "--input-type", "raw", "--npy", "/no/such/folder/x.npy"], None, "Cannot read or write"),
        (["--text", "a", "--input-type", "raw", "--npy", "x", "--json"], None, "not both"),
        (["--text", "a", __file__, "--input-type", "raw"], None, "not both"),
        (["서울은 어디?", "--input-type", "raw"], None, "--text"),
        (["/no/such/file.jsonl", "/tmp/never.npy"], None, "there is no file /no/such/file.jsonl"),
        (["--text", "a", "--input-type", "raw", "--encoding", "int8"], None, "--encoding is for files"),
        (["--text", "a", "--input-type", "raw", "--restart"], None, "--restart is for files"),
        ([__file__, "/tmp/never.npy"], None, "name its format with --input-format"),
    ],
)  # fmt: skip
def test_usage_error_is_exit_code_2(run, arguments: list[str], stdin: str | bytes | None, complaint: str) -> None:
    result = run(*arguments, stdin=stdin)
    assert result.exit_code == 2
    # The box around a usage error breaks lines where it likes.
    assert complaint.replace(" ", "") in result.stderr.replace("│", "").replace("\n", "").replace(" ", "")
    assert "Traceback" not in result.stderr
    assert isinstance(result.exception, SystemExit)


def test_missing_pyarrow_is_said_in_one_sentence(scripted: RunningServer, tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "in.jsonl", texts_of(3))
    code = "import sys; sys.modules['pyarrow'] = None; from polarvec._cli import main; main()"
    command = [sys.executable, "-c", code, "embed", source, tmp_path / "out.parquet", "--target", scripted.target]
    result = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, "NO_COLOR": "1"})
    assert result.returncode == 2
    assert result.stderr == "polarvec: This module needs the package pyarrow; install the extra polarvec[bulk]\n"
    assert subprocess.run([*command[:-3], tmp_path / "out.npy", *command[-2:]], check=False).returncode == 0


@pytest.mark.parametrize(("seconds", "said"), [(0.4, "0 s"), (59, "59 s"), (250, "4 min 10 s"), (3_905, "1 h 05 min")])
def test_durations_are_readable(seconds: float, said: str) -> None:
    assert _duration(seconds) == said
