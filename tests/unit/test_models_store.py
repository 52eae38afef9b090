"""A model folder appears whole or not at all, once, whoever builds it at the same time."""

import errno
import signal
import subprocess
import sys
import time

import pytest
from polarvec_server.models.store import ModelStoreError, build, folder_of, resolve, stored_folders

# Builds "slow": writes one file, says so, waits, writes the other.
_SLOW = """
import sys, time
from pathlib import Path
from polarvec_server.models.store import build

def fill(folder):
    (folder / "first").write_text("1")
    with open(sys.argv[2], "a") as log:
        log.write("filling\\n")
    time.sleep(float(sys.argv[3]))
    (folder / "second").write_text("2")

print(build(Path(sys.argv[1]), fill))
"""


def _start(folder, log, seconds):
    command = [sys.executable, "-c", _SLOW, str(folder), str(log), str(seconds)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def test_killed_build_leaves_no_half_folder(tmp_path):
    models, log = tmp_path / "models", tmp_path / "log"
    with _start(models / "slow", log, 60) as process:
        deadline = time.monotonic() + 30
        while not log.exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
    assert not (models / "slow").exists()
    assert stored_folders(models) == []
    folder = build(models / "slow", lambda unfinished: (unfinished / "whole").write_text("1") and None)
    assert [path.name for path in folder.iterdir()] == ["whole"]
    assert stored_folders(models) == [folder]
    assert not list(models.glob(".building-*"))


def test_two_processes_build_once(tmp_path):
    folder, log = tmp_path / "models" / "slow", tmp_path / "log"
    both = [_start(folder, log, 0.3) for _ in range(2)]
    answers = [process.communicate(timeout=30)[0].strip() for process in both]
    assert answers == [str(folder)] * 2
    assert log.read_text() == "filling\n"
    assert sorted(path.name for path in folder.iterdir()) == ["first", "second"]


@pytest.mark.parametrize("error", [ValueError("broken"), KeyboardInterrupt()])
def test_failed_build_cleans_up(tmp_path, error):
    def fill(_):
        raise error

    with pytest.raises(type(error)):
        build(tmp_path / "x", fill)
    assert stored_folders(tmp_path) == []
    assert not list(tmp_path.glob(".building-*"))


@pytest.mark.parametrize(
    ("number", "complaint"), [(errno.ENOSPC, r"disk of .* is full"), (errno.EACCES, r"cannot be written \(denied\)")]
)
def test_disk_errors_are_sentences(tmp_path, number, complaint):
    def fill(_):
        raise OSError(number, "denied")

    with pytest.raises(ModelStoreError, match=complaint):
        build(tmp_path / "x", fill)


def test_models_dir_that_is_a_file(tmp_path):
    (tmp_path / "models").write_text("")
    with pytest.raises(ModelStoreError, match="cannot be written"):
        build(tmp_path / "models" / "x", lambda _: None)


@pytest.mark.parametrize("name", ["", "../x", ".hidden", "a/b/c", "a b", "a/../b", "/etc", "모델"])
def test_names_that_are_no_names(tmp_path, name):
    with pytest.raises(ModelStoreError, match="not a model name"):
        folder_of(name, tmp_path)


@pytest.mark.parametrize(
    ("name", "folder"),
    [("e5-small", "e5-small"), ("a/b.c", "a--b.c"), ("arctic-ko", "dragonkue--snowflake-arctic-embed-l-v2.0-ko")],
)
def test_names_become_folders(tmp_path, name, folder):
    assert folder_of(name, tmp_path) == tmp_path / folder


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        ("e5-small", "`polarvec-server models pull e5-small`"),
        ("a/b@v1", "`polarvec-server models pull a/b@v1`"),
        ("tiny", "`polarvec-server models random tiny`"),
        ("arctic-l-2", "`polarvec-server models random arctic-l --layers 2`"),
        ("./nothing", "There is no folder nothing"),
        ("/nothing", "There is no folder /nothing"),
    ],
)
def test_what_is_not_there_names_the_command(tmp_path, name, complaint):
    with pytest.raises(ModelStoreError) as caught:
        resolve(name, tmp_path)
    assert complaint in str(caught.value)


def test_names_and_paths_resolve(tmp_path):
    stored = tmp_path / "models" / "a--b"
    other = tmp_path / "other"
    stored.mkdir(parents=True)
    other.mkdir()
    assert resolve("a/b", tmp_path / "models") == stored
    assert resolve("a/b@main", tmp_path / "models") == stored
    assert resolve(str(other), tmp_path / "models") == other
