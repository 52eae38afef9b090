"""`polarvec-server models ...`: what is printed, and that an error is one sentence and status 1."""

import json
import os
import subprocess
import sys

import pytest
from polarvec_server.models.commands import models_app
from typer.testing import CliRunner
from unit.hub_stand_in import HubStandIn, Repository
from unit.model_folders import write_small_model


@pytest.fixture
def models_dir(tmp_path, monkeypatch):
    monkeypatch.setenv("POLARVEC_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("COLUMNS", "200")
    write_small_model(tmp_path / "cache" / "models" / "small")
    return tmp_path / "cache" / "models"


def _run(*arguments):
    result = CliRunner().invoke(models_app, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result


def test_list_says_what_is_there(models_dir):
    (row,) = json.loads(_run("list", "--json").stdout)
    assert (row["id"], row["dimensions"], row["max_tokens"], row["pooling"]) == ("small", 32, 48, "mean")
    assert row["path"] == str(models_dir / "small")
    assert row["size_bytes"] == (models_dir / "small" / "model.safetensors").stat().st_size
    table = _run("list").stdout
    assert "small" in table
    assert "mean" in table


def test_list_names_broken_folders(models_dir):
    (models_dir / "broken").mkdir()
    result = _run("list", "--json")
    assert [row["id"] for row in json.loads(result.stdout)] == ["small"]
    assert "broken cannot be used: modules.json is missing" in result.stderr


def test_list_of_nothing_says_what_to_do(monkeypatch, tmp_path):
    monkeypatch.setenv("POLARVEC_CACHE_DIR", str(tmp_path / "empty"))
    assert "polarvec-server models pull e5-small" in _run("list").stdout


def test_show_says_everything(models_dir):
    shown = json.loads(_run("show", "small", "--json").stdout)
    assert shown["prompts"] == {"query": "query: ", "passage": "passage: "}
    assert list(shown["fingerprints"]) == ["f32", "bf16", "fp16", "int8", "fp8"]
    assert len(set(shown["fingerprints"].values())) == 5
    assert shown["architecture"] == "BertModel"
    text = _run("show", str(models_dir / "small")).stdout
    assert shown["fingerprints"]["f32"] in text
    assert '{"query": "query: ", "passage": "passage: "}' in text


def test_pull_prints_the_folder_alone(models_dir, monkeypatch):
    small = models_dir / "small"
    files = {str(path.relative_to(small)): path.read_bytes() for path in small.rglob("*") if path.is_file()}
    with HubStandIn({"a/b": Repository({"f" * 40: files}, {"main": "f" * 40})}) as hub:
        monkeypatch.setenv("POLARVEC_HUB_ENDPOINT", hub.endpoint)
        assert _run("pull", "a/b@main").stdout.strip() == str(models_dir / "a--b")
    assert {row["id"] for row in json.loads(_run("list", "--json").stdout)} == {"small", "a/b"}


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["show", "nothing"], "There is no model nothing"),
        (["show", "/nowhere"], "There is no folder /nowhere"),
        (["pull", "a b"], "not a model name"),
        (["pull", "a/b"], "cannot be reached"),
    ],
)
def test_errors_are_one_sentence_and_status_1(tmp_path, arguments, complaint):
    settings = {"POLARVEC_CACHE_DIR": str(tmp_path), "POLARVEC_HUB_ENDPOINT": "http://127.0.0.1:9"}
    done = subprocess.run(
        [sys.executable, "-m", "polarvec_server.cli", "models", *arguments],
        env=dict(os.environ) | settings,
        capture_output=True,
        text=True,
        timeout=60,
    )
    lines = [line for line in done.stderr.splitlines() if line.startswith("polarvec-server: ")]
    assert done.returncode == 1
    assert len(lines) == 1
    assert complaint in lines[0]
    assert "Traceback" not in done.stderr
