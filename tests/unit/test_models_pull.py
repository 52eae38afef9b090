"""Pulling from a hub: what arrives is checked, an interruption costs only what was lost, errors are one sentence."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from huggingface_hub import snapshot_download
from polarvec_server.models.catalogue import known_models
from polarvec_server.models.folder import ModelFolderError, read_folder
from polarvec_server.models.pull import obtain, pull
from polarvec_server.models.store import ModelStoreError, resolve, stored_folders
from unit.hub_stand_in import HubStandIn, Repository
from unit.model_folders import write_small_model

_NAME = "someone/small-model"
# More than a file object holds back, so that a killed process has written every piece that arrived.
_PIECE = 10_000
_OLD, _NEW = "a1b2c3d4" * 5, "0123456789" * 4


def _script(hub, models_dir):
    """A program that pulls the model and prints its folder."""
    arguments = f"{_NAME!r}, '', Path({str(models_dir)!r}), {hub.endpoint if hub else None!r}"
    imports = "import huggingface_hub; from pathlib import Path; from polarvec_server.models.pull import pull"
    return f"{imports}; huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE = {_PIECE}; print(pull({arguments}))"


@pytest.fixture(autouse=True)
def small_and_quick(monkeypatch):
    """huggingface_hub keeps what arrived in whole pieces, and waits a second before it takes up a broken download."""
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", _PIECE)
    monkeypatch.setattr("huggingface_hub.file_download.time.sleep", lambda _: None)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = write_small_model(tmp_path_factory.mktemp("hub") / "small")
    content = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    extra = ("pytorch_model.bin", "onnx/model.onnx", "onnx/config.json", "model.h5", "rust_model.ot", "modeling_x.py")
    return content | dict.fromkeys(extra, b"never wanted")


@pytest.fixture
def hub(files):
    older = files | {"config_sentence_transformers.json": b'{"prompts": {"query": "old: "}}'}
    with HubStandIn({_NAME: Repository({_OLD: older, _NEW: files}, {"main": _NEW, "v1": _OLD})}) as stand_in:
        yield stand_in


def test_pull_brings_a_checked_folder(hub, tmp_path):
    folder = pull(_NAME, "", tmp_path, hub.endpoint)
    assert folder == tmp_path / "someone--small-model" == resolve(_NAME, tmp_path)
    model = read_folder(folder)
    assert (model.id, model.revision, model.dimensions) == (_NAME, _NEW, 32)
    assert json.loads((folder / "polarvec.json").read_text())["source"] == f"{_NAME} from a model hub"
    assert not {fetch.path for fetch in hub.fetches} & {"pytorch_model.bin", "onnx/config.json", "modeling_x.py"}
    assert stored_folders(tmp_path) == [folder]
    assert not list(tmp_path.glob(".pulling-*"))


@pytest.mark.parametrize(
    ("revision", "commit"), [("main", _NEW), ("v1", _OLD), (_OLD, _OLD), (_OLD[:8], _OLD), (_NEW[:7], _NEW)]
)
def test_every_way_to_name_a_revision(hub, tmp_path, revision, commit):
    assert read_folder(pull(_NAME, revision, tmp_path, hub.endpoint)).revision == commit


def test_pulling_again_fetches_nothing(hub, tmp_path):
    pull(_NAME, "", tmp_path, hub.endpoint)
    hub.fetches.clear()
    pull(_NAME, "", tmp_path, hub.endpoint)
    assert hub.fetches == []
    hub.api_calls.clear()
    pull(_NAME, _NEW, tmp_path, hub.endpoint)
    assert hub.api_calls == []


def test_another_revision_replaces_the_folder(hub, tmp_path):
    pull(_NAME, "v1", tmp_path, hub.endpoint)
    assert read_folder(resolve(_NAME, tmp_path)).prompts == {"query": "old: "}
    pull(_NAME, "main", tmp_path, hub.endpoint)
    assert read_folder(resolve(_NAME, tmp_path)).prompts["passage"] == "passage: "
    assert [path.name for path in stored_folders(tmp_path)] == ["someone--small-model"]


def test_broken_connection_goes_on_where_it_stopped(hub, files, tmp_path):
    hub.cuts["model.safetensors"] = [2 * _PIECE, _PIECE]
    folder = pull(_NAME, "", tmp_path, hub.endpoint)
    assert (folder / "model.safetensors").read_bytes() == files["model.safetensors"]
    starts = [fetch.range_start for fetch in hub.fetches if fetch.path == "model.safetensors"]
    assert starts == [0, 2 * _PIECE, 3 * _PIECE]
    assert hub.bytes_of("model.safetensors") == len(files["model.safetensors"])


def test_next_command_goes_on_where_the_last_was_interrupted(hub, files, tmp_path, monkeypatch):
    size = len(files["model.safetensors"])
    hub.cuts["model.safetensors"] = [4 * _PIECE]

    class CtrlC(BaseException):
        """Like KeyboardInterrupt, without ending the whole test run should it stray."""

    here, sleep = threading.current_thread(), time.sleep

    def interrupt(seconds: float) -> None:
        # The module `time` is everybody's, so threads of other tests must still be able to sleep.
        if threading.current_thread() is here:
            raise CtrlC
        sleep(seconds)

    with monkeypatch.context() as patched:
        patched.setattr("huggingface_hub.file_download.time.sleep", interrupt)
        with pytest.raises(CtrlC):
            pull(_NAME, "", tmp_path, hub.endpoint)
    assert stored_folders(tmp_path) == []
    assert not (tmp_path / "someone--small-model").exists()
    small = [fetch.path for fetch in hub.fetches if fetch.path != "model.safetensors"]
    pull(_NAME, "", tmp_path, hub.endpoint)
    assert [fetch.range_start for fetch in hub.fetches if fetch.path == "model.safetensors"] == [0, 4 * _PIECE]
    assert hub.bytes_of("model.safetensors") == size
    assert [fetch.path for fetch in hub.fetches if fetch.path != "model.safetensors"] == small


def test_killed_pull_leaves_no_half_folder(hub, files, tmp_path):
    size = len(files["model.safetensors"])
    hub.cuts["model.safetensors"] = [4 * _PIECE] + [0] * 5
    script = _script(hub, tmp_path)
    with subprocess.Popen([sys.executable, "-c", script], stderr=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + 30
        # The second request comes when what the first one brought is on the disk.
        while sum(fetch.path == "model.safetensors" for fetch in hub.fetches) < 2 and time.monotonic() < deadline:
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
    assert stored_folders(tmp_path) == []
    hub.cuts.clear()
    pull(_NAME, "", tmp_path, hub.endpoint)
    assert hub.bytes_of("model.safetensors") == size


def test_two_processes_pull_once(hub, files, tmp_path):
    script = _script(hub, tmp_path)
    both = [
        subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        for _ in range(2)
    ]
    answers = [process.communicate(timeout=60)[0].decode().strip() for process in both]
    assert answers == [str(tmp_path / "someone--small-model")] * 2
    assert hub.bytes_of("model.safetensors") == len(files["model.safetensors"])


def test_damaged_file_is_thrown_away(hub, files, tmp_path):
    hub.damaged["model.safetensors"] = bytes(len(files["model.safetensors"]))
    with pytest.raises(ModelStoreError, match=r"model\.safetensors of someone/small-model arrived damaged"):
        pull(_NAME, "", tmp_path, hub.endpoint)
    hub.damaged.clear()
    pull(_NAME, "", tmp_path, hub.endpoint)


@pytest.mark.parametrize(
    ("name", "revision", "complaint"),
    [
        ("someone/nothing", "", r"There is no model someone/nothing at .*check the name"),
        (_NAME, "v9", "has no revision v9"),
        (_NAME, "deadbeef", "has no revision deadbeef"),
        ("someone/gated", "", r"gated: accept its terms .* HF_TOKEN"),
    ],
)
def test_hub_errors_are_sentences(hub, tmp_path, name, revision, complaint):
    hub.repositories["someone/gated"] = Repository({}, {}, gated=True)
    with pytest.raises(ModelStoreError, match=complaint) as caught:
        pull(name, revision, tmp_path, hub.endpoint)
    assert "\n" not in str(caught.value)
    assert stored_folders(tmp_path) == []


@pytest.mark.parametrize("status", [500, 503, 429])
def test_hub_in_trouble(hub, tmp_path, status):
    hub.status = status
    with pytest.raises(ModelStoreError, match=rf"answered {status} .*try again later"):
        pull(_NAME, "", tmp_path, hub.endpoint)


def test_hub_unreachable(tmp_path):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        with pytest.raises(ModelStoreError, match=r"cannot be reached .*run the same command again"):
            pull(_NAME, "", tmp_path, f"http://127.0.0.1:{closed.getsockname()[1]}")


def test_silent_hub_is_given_up(tmp_path, monkeypatch):
    monkeypatch.setattr("polarvec_server.models.hub._FIRST_ANSWER_S", 0.2)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        with pytest.raises(ModelStoreError, match=r"cannot be reached \(ReadTimeout\)"):
            pull(_NAME, "", tmp_path, f"http://127.0.0.1:{silent.getsockname()[1]}")


def test_endpoint_comes_from_hf_endpoint(hub, tmp_path):
    environment = dict(os.environ) | {"HF_ENDPOINT": hub.endpoint}
    command = [sys.executable, "-c", _script(None, tmp_path)]
    subprocess.run(command, env=environment, check=True, capture_output=True, timeout=60)
    assert read_folder(resolve(_NAME, tmp_path)).revision == _NEW


def test_offline_setting_is_named(hub, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ModelStoreError, match="HF_HUB_OFFLINE forbids"):
        pull(_NAME, "", tmp_path, hub.endpoint)


def test_full_disk_is_said_before_the_download(hub, tmp_path, monkeypatch):
    class Full:
        free = 5000

    monkeypatch.setattr("shutil.disk_usage", lambda _: Full)
    with pytest.raises(ModelStoreError, match=r"disk of .* is full"):
        pull(_NAME, "", tmp_path, hub.endpoint)
    assert hub.bytes_of("model.safetensors") == 0


@pytest.mark.parametrize(
    ("gone", "complaint"),
    [
        ("model.safetensors", "no safetensors weights"),
        ("modules.json", "no modules.json"),
        ("tokenizer.json", "no tokenizer.json"),
        ("1_Pooling/config.json", "1_Pooling/config.json is missing"),
    ],
)
def test_unfit_model_is_refused_before_its_weights(hub, files, tmp_path, gone, complaint):
    hub.repositories[_NAME].commits[_NEW] = {name: content for name, content in files.items() if name != gone}
    with pytest.raises(ModelFolderError, match=complaint) as caught:
        pull(_NAME, "", tmp_path, hub.endpoint)
    assert ".pulling" not in str(caught.value)
    assert hub.bytes_of("model.safetensors") == 0
    assert stored_folders(tmp_path) == []


def test_weights_are_checked_before_the_folder_counts(hub, files, tmp_path):
    config = json.loads(files["config.json"]) | {"num_hidden_layers": 3}
    hub.repositories[_NAME].commits[_NEW] = files | {"config.json": json.dumps(config).encode()}
    with pytest.raises(ModelFolderError, match=r"encoder\.layer\.2"):
        pull(_NAME, "", tmp_path, hub.endpoint)
    assert stored_folders(tmp_path) == []


def test_stand_in_satisfies_huggingface_hub_itself(hub, files, tmp_path):
    """So that what is proven against the stand-in is not proven against a fantasy."""
    patterns = ["*.json", "*.safetensors"]
    folder = Path(snapshot_download(_NAME, local_dir=tmp_path, endpoint=hub.endpoint, allow_patterns=patterns))
    assert (folder / "model.safetensors").read_bytes() == files["model.safetensors"]


def test_obtain_knows_names_folders_and_revisions(hub, files, tmp_path):
    said: list[str] = []
    folder = obtain(f"{_NAME}@v1", tmp_path / "models", hub.endpoint, said.append)
    assert said == [f"asking the hub for {_NAME}@v1"]
    assert obtain(_NAME, tmp_path / "models", hub.endpoint, said.append) == folder
    assert obtain(str(folder), tmp_path / "models", hub.endpoint, said.append) == folder
    assert len(said) == 1
    obtain(f"{_NAME}@main", tmp_path / "models", hub.endpoint, said.append)
    assert read_folder(folder).revision == _NEW
    with pytest.raises(ModelStoreError, match="no folder /nowhere"):
        obtain("/nowhere", tmp_path / "models", hub.endpoint, said.append)


def test_catalogue_pins_its_revision(hub, files, tmp_path):
    known = next(model for model in known_models() if "arctic-ko" in model.aliases)
    hub.repositories[known.id] = Repository({known.revision: files, _NEW: files}, {"main": _NEW})
    folder = pull("arctic-ko", "", tmp_path, hub.endpoint)
    assert (read_folder(folder).id, read_folder(folder).revision) == (known.id, known.revision)
    assert resolve("arctic-ko", tmp_path) == folder


def test_catalogue_has_no_name_twice():
    names = [name for model in known_models() for name in (model.id, *model.aliases)]
    assert len(names) == len(set(names))
    assert all(not model.revision or len(model.revision) in (8, 40) for model in known_models())
