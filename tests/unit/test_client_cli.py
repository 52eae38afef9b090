"""The command `polarvec`: what it prints, and its exit codes."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from grpc import StatusCode
from polarvec import __version__
from polarvec._commands import app
from polarvec_proto.v1 import embedding_pb2 as pb
from server_process import wait_until
from typer.testing import CliRunner, Result
from unit.scripted_server import RunningServer, ScriptedServer, status, vector


@pytest.fixture
def run(scripted: RunningServer):
    """Runs the command in this process, with the scripted server in the environment."""

    def invoke(*arguments: str, stdin: str | bytes | None = None, **environment: str) -> Result:
        return CliRunner().invoke(app, arguments, input=stdin, env={"POLARVEC_TARGET": scripted.target} | environment)

    return invoke


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


def test_rank_cuts_where_it_is_told(run, scripted: RunningServer) -> None:
    assert run("rank", "--query", "q", "d", "--truncation", "end").exit_code == 0
    (call,) = scripted.servicer.seen
    assert call.request.truncation == pb.TRUNCATION_END


def test_similarity_shows_a_matrix(run) -> None:
    texts = ["하나", "둘", "[bold]셋[/bold]"]
    result = run("similarity", *texts)
    assert result.exit_code == 0
    rows = [line.split() for line in result.stdout.splitlines()]
    assert rows[0] == ["#", "text", "0", "1", "2"]
    matrix = np.stack([vector(text) for text in texts])
    for index, (text, expected) in enumerate(zip(texts, matrix @ matrix.T, strict=True)):
        assert rows[index + 1] == [str(index), text, *(f"{score:+.4f}" for score in expected)]


def test_similarity_writes_json(run) -> None:
    found = json.loads(run("similarity", "--json", stdin="a\nb\n").stdout)
    assert found["texts"] == ["a", "b"]
    expected = float(vector("a") @ vector("b"))
    np.testing.assert_allclose(found["similarities"], [[1, expected], [expected, 1]], rtol=1e-6)


def test_tokenize_counts(run) -> None:
    result = run("tokenize", "하나", "길" * 65, "--input-type", "query", "--ids")
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert lines[1].split() == ["0", "하나", "2", *(str(ord(character)) for character in "하나")]
    assert "too long" in lines[2] and "(all with --json)" in result.stdout and "too long" not in lines[1]
    assert lines[-1] == "67 tokens; the model reads 64 of a text"


@pytest.mark.parametrize("ids", [{}, {"token_ids": [97]}], ids=["counts", "ids"])
def test_tokenize_writes_json(run, ids: dict[str, list[int]]) -> None:
    result = run("tokenize", "a", "--input-type", "raw", "--json", *(["--ids"] if ids else []))
    assert json.loads(result.stdout) == {"index": 0, "token_count": 1, "too_long": False, **ids}


def test_models_are_shown(run) -> None:
    assert "tiny" in run("models").stdout
    (model,) = json.loads(run("models", "--json").stdout)
    assert (model["id"], model["prompts"], model["limits"]["max_text_count"]) == ("tiny", {"query": "query: "}, 0)
    assert json.loads(run("models", "tiny", "--json").stdout) == model


def test_one_model_is_shown_in_full(run, scripted: RunningServer) -> None:
    scripted.servicer.limits.max_text_count = 1024
    rows = dict(re.split(r"  +", line.strip(), maxsplit=1) for line in run("models", "tiny").stdout.splitlines())
    assert (rows["id"], rows["dimensions"], rows["prompt query"]) == ("tiny", "16, 8", "'query: '")
    assert (rows["limit max text count"], rows["limit max token count"]) == ("1,024", "none")
    assert run("models", "other").exit_code == 2


def test_health_is_the_exit_code(run, scripted: RunningServer) -> None:
    assert (run("health").stdout, run("health").exit_code) == ("serving\n", 0)
    scripted.set_health("tiny", serving=False)
    assert (run("health", "tiny").stdout, run("health", "tiny").exit_code) == ("not serving\n", 1)
    assert json.loads(run("health", "--json").stdout) == {"service": "", "serving": True}
    unknown = run("health", "other")
    assert (unknown.exit_code, unknown.stderr) == (
        2,
        "polarvec: The server does not know this name; polarvec models lists the models that it has.\n",
    )


def test_health_asks_every_target(run, scripted: RunningServer) -> None:
    with RunningServer(ScriptedServer()) as other:
        both = ("health", "--target", scripted.target, "--target", other.target)
        assert run(*both).stdout == f"{scripted.target} serving\n{other.target} serving\n"
        other.set_health("", serving=False)
        rows = [json.loads(line) for line in run(*both, "--json").stdout.splitlines()]
        assert [(row["target"], row["serving"]) for row in rows] == [(scripted.target, True), (other.target, False)]
        assert run(*both).exit_code == 1
    down = run("health", "--target", "127.0.0.1:1", "--target", scripted.target, "--timeout", "1")
    assert (down.exit_code, down.stdout) == (1, f"127.0.0.1:1 not serving\n{scripted.target} serving\n")
    assert down.stderr.startswith("polarvec: 127.0.0.1:1: The server cannot be reached")


def test_several_targets_share_the_calls(run, scripted: RunningServer) -> None:
    with RunningServer(ScriptedServer()) as other:
        targets = f"{scripted.target} {other.target}"
        result = run("bench", "--seconds", "0.2", "--json", POLARVEC_TARGET=targets)
        assert result.exit_code == 0, result.stderr
        assert scripted.servicer.count("Embed") > 0
        assert other.servicer.count("Embed") > 0


@pytest.mark.parametrize("loop", [["--concurrency", "3"], ["--rate", "200"]], ids=["closed", "open"])
def test_bench_counts_what_the_server_answered(run, scripted: RunningServer, tmp_path: Path, loop: list[str]) -> None:
    (tmp_path / "texts").write_text("하나\n둘\n셋넷\n", encoding="utf-8")
    options = ("--seconds", "0.3", "--batch-size", "2", "--file", str(tmp_path / "texts"))
    result = run("bench", *options, *loop, "--json")
    assert result.exit_code == 0, result.stderr
    found = json.loads(result.stdout)
    ahead = scripted.servicer.count("GetModel")  # one a connection, for its first batch
    calls = [texts for texts in scripted.servicer.texts_seen()[ahead:]]
    assert found["calls"] == len(calls) > 3
    assert found["errors"] == {}
    assert (found["loop"], found["batch_size"]) == ("closed" if "--concurrency" in loop else "open", 2)
    assert found["texts_per_s"] == pytest.approx(2 * found["calls"] / found["elapsed_s"], rel=0.05)
    token_count = sum(len(text) for texts in calls for text in texts)
    assert found["tokens_per_s"] == pytest.approx(token_count / found["elapsed_s"], rel=0.05)
    assert 0 < found["p50_ms"] <= found["p95_ms"] <= found["p99_ms"]


def test_bench_keeps_as_many_calls_under_way_as_asked(run, scripted: RunningServer) -> None:
    scripted.servicer.delay_s = 0.02
    result = run("bench", "--seconds", "0.3", "--concurrency", "12")
    assert result.stdout.startswith("closed loop, 12 calls under way, 1 texts a call")
    assert 8 < scripted.servicer.max_in_flight <= 12


def test_an_open_loop_does_not_wait_for_answers(run, scripted: RunningServer) -> None:
    scripted.servicer.delay_s = 0.5
    result = run("bench", "--seconds", "0.3", "--rate", "200", "--json")
    assert json.loads(result.stdout)["p50_ms"] >= 500
    assert scripted.servicer.max_in_flight > 12


def test_bench_names_what_failed(run, tmp_path: Path) -> None:
    (tmp_path / "texts").write_text("good\nBAD\n", encoding="utf-8")
    result = run("bench", "--seconds", "0.2", "--file", str(tmp_path / "texts"), "--json")
    found = json.loads(result.stdout)
    assert result.exit_code == 0
    assert found["errors"] == {"InvalidRequest": pytest.approx(found["calls"], abs=8)}
    (tmp_path / "texts").write_text("BAD\n", encoding="utf-8")
    result = run("bench", "--seconds", "0.2", "--file", str(tmp_path / "texts"))
    assert (result.exit_code, result.stdout) == (2, "")


def test_version_is_printed(run) -> None:
    assert run("version").stdout == f"{__version__}\n"
    assert json.loads(run("version", "--json").stdout) == {"version": __version__}
    assert (run("--version").stdout, run("--version").exit_code) == (f"{__version__}\n", 0)


def test_the_key_is_sent_and_not_shown(run, scripted: RunningServer) -> None:
    result = run("models", POLARVEC_API_KEY="key-1")
    assert scripted.servicer.seen[0].metadata["authorization"] == "Bearer key-1"
    shown = run("models", "--help", POLARVEC_API_KEY="key-1")
    assert "key-1" not in result.output + shown.output


def test_tls_options_encrypt(run, tmp_path: Path) -> None:
    # A server without TLS cannot answer a client with it, and a broken certificate is refused before any call.
    assert run("models", "--tls", "--timeout", "1").exit_code == 1
    (tmp_path / "ca.pem").write_text("no certificate", encoding="utf-8")
    broken = run("models", "--tls-ca", str(tmp_path / "ca.pem"))
    assert broken.exit_code == 2
    assert str(tmp_path / "ca.pem") in broken.stderr
    half = run("models", "--tls-certificate", str(tmp_path / "ca.pem"))
    assert (half.exit_code, "give both" in half.stderr) == (2, True)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_shells_complete_commands(shell: str) -> None:
    command = str(Path(sys.executable).with_name("polarvec"))
    environment = {**os.environ, "_POLARVEC_COMPLETE": f"complete_{shell}", "_TYPER_COMPLETE_ARGS": "polarvec si"}
    environment |= {"COMP_WORDS": "polarvec si", "COMP_CWORD": "1", "_TYPER_COMPLETE_FISH_ACTION": "get-args"}
    done = subprocess.run([command], capture_output=True, text=True, check=False, env=environment)
    assert "similarity" in done.stdout
    assert "tokenize" not in done.stdout


def test_ctrl_c_ends_with_130(scripted: RunningServer) -> None:
    command = [str(Path(sys.executable).with_name("polarvec")), "bench", "--target", scripted.target, "--seconds", "60"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    wait_until(lambda: scripted.servicer.count("Embed") > 20, 20, "the load runs")
    process.send_signal(signal.SIGINT)
    _, complaint = process.communicate(timeout=20)
    assert process.returncode == 130
    assert "Traceback" not in complaint


@pytest.mark.parametrize(
    ("code", "exit_code"),
    [
        (StatusCode.INVALID_ARGUMENT, 2),
        (StatusCode.NOT_FOUND, 2),
        (StatusCode.UNAUTHENTICATED, 2),
        (StatusCode.PERMISSION_DENIED, 2),
        (StatusCode.RESOURCE_EXHAUSTED, 1),
        (StatusCode.INTERNAL, 1),
    ],
)
def test_error_is_one_sentence(run, scripted: RunningServer, code: StatusCode, exit_code: int) -> None:
    scripted.servicer.fail_next("Rank", status(code, message="Do it so."))
    result = run("rank", "--query", "q", "d")
    assert (result.stdout, result.stderr, result.exit_code) == ("", "polarvec: Do it so.\n", exit_code)


@pytest.mark.parametrize(
    ("code", "reason", "said", "typed"),
    [
        (StatusCode.UNAUTHENTICATED, "UNAUTHENTICATED", "Send a key: authorization: Bearer KEY.", "POLARVEC_API_KEY"),
        (StatusCode.INVALID_ARGUMENT, "TEXT_TOO_LONG", "texts[0]: ask for truncation.", "--truncation end"),
    ],
    ids=["key", "truncation"],
)
def test_error_names_the_options(
    run, scripted: RunningServer, code: StatusCode, reason: str, said: str, typed: str
) -> None:
    scripted.servicer.fail_next("Rank", status(code, reason=reason, message=said))
    assert typed in run("rank", "--query", "q", "d").stderr


def test_errors_of_the_connection_name_the_options(run, tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("no certificate", encoding="utf-8")
    assert run("models", "--tls-ca", str(tmp_path / "ca.pem")).stderr.startswith("polarvec: --tls-ca, the file")
    assert "--tls-key" in run("models", "--tls-certificate", str(tmp_path / "ca.pem")).stderr


def test_many_texts_are_compared_in_pairs(run) -> None:
    texts = [f"text-{number}" for number in range(30)]
    shown = run("similarity", *texts).stdout.splitlines()
    assert shown[0].split() == ["score", "#", "text", "#", "text"]
    scores = [float(line.split()[0]) for line in shown[1:-1]]
    assert len(scores) == 50
    assert scores == sorted(scores, reverse=True)
    assert shown[-1] == "the closest 50 of 435 pairs; all with --json"


def test_narrow_terminal_shows_the_whole_fingerprint(capsys, monkeypatch) -> None:
    from polarvec import Limits, Model, _render

    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "50")
    fingerprint = "0123456789abcdef"
    fields = {field.name: "bfloat16" for field in dataclasses.fields(Model)}
    fields |= {"fingerprint": fingerprint, "dimensions": 384, "trained_dimensions": (64,), "max_token_count": 512}
    _render.models([Model(**fields | {"prompts": {}, "limits": Limits(0, 0, 0, 0)})], as_json=False)
    assert fingerprint in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "stdin", "complaint"),
    [
        (["rank", "d"], None, "--query"),
        (["rank", "--query", "q"], "", "documents is empty"),
        (["rank", "--query", "q"], b"\xff\xfe\n", "not UTF-8"),
        (["rank", "d", "--query", "q", "--file", __file__], None, "not both"),
        (["rank", "--query", "q", "--file", "/no/such/file"], None, "does not exist"),
        (["tokenize", "a", "--input-type", "passage"], None, "passage"),
        (["similarity", "a"], None, "at least two"),
        (["similarity", *"a" * 51], None, "use --json"),
        (["bench", "--rate", "inf"], None, "100000"),
        (["tokenize", "a"], None, "--input-type"),
        (["bench", "--rate", "0"], None, "0"),
        (["bench", "--file", "/dev/null"], None, "texts is empty"),
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


def test_mark_of_windows_editors_is_no_part_of_the_first_text(run, scripted: RunningServer, tmp_path: Path) -> None:
    (tmp_path / "texts").write_bytes(b"\xef\xbb\xbfa\r\nb\r\n")
    run("tokenize", "--input-type", "raw", "--file", str(tmp_path / "texts"))
    run("tokenize", "--input-type", "raw", stdin=b"\xef\xbb\xbfa\nb\n")
    assert scripted.servicer.texts_seen("Tokenize") == [["a", "b"], ["a", "b"]]


def test_control_characters_do_not_reach_the_terminal(run) -> None:
    assert "\x1b" not in run("tokenize", "--input-type", "raw", "\x1b[31mred").stdout


COMMAND = str(Path(sys.executable).with_name("polarvec"))


@pytest.mark.parametrize("arguments", [["version"], ["models"], ["models", "--json"]])
def test_full_disk_is_said_in_one_sentence(scripted: RunningServer, arguments: list[str]) -> None:
    environment = {**os.environ, "POLARVEC_TARGET": scripted.target}
    with open("/dev/full", "w") as full:
        result = subprocess.run(
            [COMMAND, *arguments], stdout=full, stderr=subprocess.PIPE, text=True, check=False, env=environment
        )
    assert result.returncode == 2
    assert result.stderr == "polarvec: Cannot read or write: No space left on device; choose another file or place.\n"


@pytest.mark.parametrize("arguments", [["tokenize", "--json"], ["embed", "--json", "-"]])
def test_reader_that_has_seen_enough_is_no_complaint(scripted: RunningServer, arguments: list[str]) -> None:
    command = [COMMAND, *arguments, "--input-type", "raw"]
    environment = {**os.environ, "POLARVEC_TARGET": scripted.target}
    read_end, write_end = os.pipe()
    os.close(read_end)
    try:
        done = subprocess.run(
            command,
            input="text\n" * 3000,
            stdout=write_end,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
            timeout=60,
            check=False,
        )
    finally:
        os.close(write_end)
    assert (done.returncode, done.stderr) == (1, "")


def test_terminal_that_lacks_a_letter_shows_another(scripted: RunningServer) -> None:
    environment = {**os.environ, "POLARVEC_TARGET": scripted.target, "PYTHONIOENCODING": "cp949"}
    shown, written = (
        subprocess.run(
            [COMMAND, "rank", "--query", "é", "한국", *more], capture_output=True, check=True, env=environment
        )
        for more in ((), ("--json",))
    )
    assert "한국" in shown.stdout.decode("cp949")
    assert json.loads(written.stdout.decode())["query"] == "é"


def test_installed_command_runs_and_reports_a_missing_server() -> None:
    command = [COMMAND, "health", "--target", "127.0.0.1:1", "--timeout", "1"]
    result = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, "NO_COLOR": "1"})
    assert result.returncode == 1
    assert result.stderr.startswith("polarvec: The server cannot be reached")
    assert result.stderr.count("\n") == 1


def test_missing_extra_is_said_in_one_sentence() -> None:
    code = "import sys; sys.modules['typer'] = None; from polarvec._cli import main; main()"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 2
    assert result.stderr == "The command polarvec needs typer and rich; install the extra polarvec[cli]\n"
