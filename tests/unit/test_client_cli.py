"""The command `polarvec`: what it prints, and its exit codes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from grpc import StatusCode
from polarvec import __version__
from polarvec._commands import app
from typer.testing import CliRunner, Result
from unit.scripted_server import RunningServer, status, vector


@pytest.fixture
def run(scripted: RunningServer):
    """Runs the command in this process, with the scripted server in the environment."""

    def invoke(*arguments: str, stdin: str | bytes | None = None) -> Result:
        return CliRunner().invoke(app, arguments, input=stdin, env={"POLARVEC_TARGET": scripted.target})

    return invoke


def test_embed_shows_a_table(run) -> None:
    result = run("embed", "서울은 어디?", "[bold]markup[/bold]", "--input-type", "query")
    assert result.exit_code == 0
    assert "서울은 어디?" in result.stdout
    assert "[bold]markup[/bold]" in result.stdout
    assert f"{vector('서울은 어디?')[0]:+.4f}" in result.stdout
    assert "fingerprint f1" in result.stdout


@pytest.mark.parametrize("source", ["arguments", "file", "stdin"])
def test_embed_writes_json_lines(run, tmp_path: Path, source: str) -> None:
    texts = ["하나", "둘"]
    (tmp_path / "texts").write_text("하나\n둘\n", encoding="utf-8")
    given = {"arguments": texts, "file": ["--file", str(tmp_path / "texts")], "stdin": []}[source]
    result = run("embed", *given, "--input-type", "document", "--json", stdin="하나\n둘\n")
    rows = [json.loads(line) for line in result.stdout.splitlines()]
    assert [row["index"] for row in rows] == [0, 1]
    np.testing.assert_allclose([row["embedding"] for row in rows], [vector(text) for text in texts], rtol=1e-6)


def test_embed_writes_npy(run, tmp_path: Path) -> None:
    path = tmp_path / "out.npy"
    assert run("embed", "--input-type", "raw", "--npy", str(path), stdin="a\nb\n").exit_code == 0
    np.testing.assert_array_equal(np.load(path), [vector("a"), vector("b")])


def test_json_goes_on_after_a_bad_text(run) -> None:
    result = run("embed", "a", "BAD", "c", "--input-type", "raw", "--json")
    assert [json.loads(line)["index"] for line in result.stdout.splitlines()] == [0, 2]
    assert result.stderr == "polarvec: texts[1] is bad; make it good.\n"
    assert result.exit_code == 2


def test_rank_shows_a_table_a_query(run) -> None:
    result = run("rank", "--query", "q", "--query", "r", "d0", "d1", "--top-k", "1")
    assert result.exit_code == 0
    best = int(np.argmax([vector("d0") @ vector("q"), vector("d1") @ vector("q")]))
    assert f"d{best}" in result.stdout.split("r\n")[0]


def test_rank_writes_json(run) -> None:
    result = run("rank", "--query", "q", "d0", "d1", "--json")
    (row,) = map(json.loads, result.stdout.splitlines())
    assert row["query"] == "q"
    assert sorted(document["document_index"] for document in row["documents"]) == [0, 1]


def test_models_are_shown(run) -> None:
    assert "tiny" in run("models").stdout
    (model,) = json.loads(run("models", "--json").stdout)
    assert (model["id"], model["prompts"], model["limits"]["max_text_count"]) == ("tiny", {"query": "query: "}, 0)


def test_health_is_the_exit_code(run, scripted: RunningServer) -> None:
    assert (run("health").stdout, run("health").exit_code) == ("serving\n", 0)
    scripted.set_health("tiny", serving=False)
    assert (run("health", "tiny").stdout, run("health", "tiny").exit_code) == ("not serving\n", 1)
    assert json.loads(run("health", "--json").stdout) == {"service": "", "serving": True}
    unknown = run("health", "other")
    assert (unknown.exit_code, unknown.stderr) == (
        2,
        "polarvec: The server does not know this name; models() lists the models that it has.\n",
    )


def test_version_is_printed(run) -> None:
    assert run("version").stdout == f"{__version__}\n"


@pytest.mark.parametrize(
    ("code", "exit_code"),
    [
        (StatusCode.INVALID_ARGUMENT, 2),
        (StatusCode.NOT_FOUND, 2),
        (StatusCode.UNAUTHENTICATED, 1),
        (StatusCode.RESOURCE_EXHAUSTED, 1),
        (StatusCode.INTERNAL, 1),
    ],
)
def test_error_is_one_sentence(run, scripted: RunningServer, code: StatusCode, exit_code: int) -> None:
    scripted.servicer.fail_next("Embed", status(code, message="Do it so."))
    result = run("embed", "a", "--input-type", "raw")
    assert (result.stdout, result.stderr, result.exit_code) == ("", "polarvec: Do it so.\n", exit_code)


@pytest.mark.parametrize(
    ("arguments", "stdin", "complaint"),
    [
        (["embed", "a"], None, "--input-type"),
        (["embed", "a", "--input-type", "passage"], None, "passage"),
        (["embed", "--input-type", "raw"], "", "texts is empty"),
        (["embed", "--input-type", "raw"], b"\xff\xfe\n", "not UTF-8"),
        (["embed", "a", "--input-type", "raw", "--npy", "/no/such/folder/x.npy"], None, "Cannot write"),
        (["embed", "a", "--input-type", "raw", "--npy", "x", "--json"], None, "not both"),
        (["embed", "a", "--file", __file__, "--input-type", "raw"], None, "not both"),
        (["embed", "--file", "/no/such/file", "--input-type", "raw"], None, "does not exist"),
        (["rank", "d"], None, "--query"),
        (["models", "--target", "http://host"], None, "give host:port"),
        (["models", "--timeout", "0"], None, "0"),
        (["dance"], None, "dance"),
    ],
)
def test_usage_error_is_exit_code_2(run, arguments: list[str], stdin: str | bytes | None, complaint: str) -> None:
    result = run(*arguments, stdin=stdin)
    assert result.exit_code == 2
    assert complaint in result.stderr
    assert "Traceback" not in result.stderr
    assert isinstance(result.exception, SystemExit)


def test_installed_command_runs_and_reports_a_missing_server() -> None:
    command = [str(Path(sys.executable).with_name("polarvec")), "health", "--target", "127.0.0.1:1"]
    result = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, "NO_COLOR": "1"})
    assert result.returncode == 1
    assert result.stderr.startswith("polarvec: The server cannot be reached")
    assert result.stderr.count("\n") == 1


def test_missing_extra_is_said_in_one_sentence() -> None:
    code = "import sys; sys.modules['typer'] = None; from polarvec._cli import main; main()"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 2
    assert result.stderr == "The command polarvec needs typer and rich; run: pip install 'polarvec[cli]'\n"
