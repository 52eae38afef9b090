"""`polarvec-server prepare`: what it writes for a CPU, for GPUs, and for another machine."""

import pytest
from google.protobuf import text_format
from polarvec_encoder.gpu import find_gpus
from polarvec_server import cli, prepare
from polarvec_server.config import load_settings
from polarvec_server.deployment import read_deployment
from polarvec_server.errors import ConfigError
from polarvec_server.models.inspection import Inspection
from tritonclient.grpc import model_config_pb2
from typer.testing import CliRunner
from unit.model_folders import write_small_model

KIND = model_config_pb2.ModelInstanceGroup


@pytest.fixture
def folder(tmp_path):
    return write_small_model(tmp_path / "models" / "small")


def written(root):
    text = (root / "repository" / "encoder_0" / "config.pbtxt").read_text(encoding="utf-8")
    return text_format.Parse(text, model_config_pb2.ModelConfig())


def parameters(config):
    return {key: value.string_value for key, value in config.parameters.items()}


def prepare_on_gpus(monkeypatch, tmp_path, folder, count, **settings):
    """As on a machine with GPUs: the encoder's answer is put in its place."""
    answer = Inspection("cuda", "bf16", "tanh", count, "NVIDIA H100 is here", {})
    monkeypatch.setattr(prepare.repository, "inspect", lambda *_, **__: answer)
    chosen = load_settings(model=str(folder), cache_dir=tmp_path / "cache", **settings)
    return prepare.prepare_models(chosen, tmp_path / "repository", lambda _: None, 0)


def test_a_cpu_gets_one_instance_and_its_threads(tmp_path, folder):
    said = []
    settings = load_settings(
        model=str(folder), cache_dir=tmp_path / "cache", engine="openvino", precision="f32", engine_streams=2
    )
    (model,) = prepare.prepare_models(settings, tmp_path / "repository", said.append, 3)
    config = written(tmp_path)
    assert [(group.kind, group.count) for group in config.instance_group] == [(KIND.KIND_CPU, 1)]
    assert config.max_batch_size == 64
    assert config.dynamic_batching.max_queue_delay_microseconds == 0
    values = parameters(config)
    assert (values["threads"], values["streams"], values["gelu"]) == ("3", "2", "erf")
    assert values["cache_dir"] == str(tmp_path / "cache" / "engines" / model.fingerprint)
    assert "FORCE_CPU_ONLY_INPUT_TENSORS" not in values
    assert model.instance_count == 1
    assert "openvino: as asked; f32: as asked" in said[-1]


def test_the_null_engine_has_a_space_of_its_own(tmp_path, folder):
    """In fingerprint and golden file, or its vectors could be stored beside real ones."""
    models = []
    for engine in ("openvino", "null"):
        settings = load_settings(model=str(folder), cache_dir=tmp_path / "cache", engine=engine, precision="f32")
        models += prepare.prepare_models(settings, tmp_path / "repository", lambda _: None, 1)
    assert parameters(written(tmp_path))["engine"] == "null"
    assert len({model.fingerprint for model in models}) == len({model.golden_path for model in models}) == 2


@pytest.mark.parametrize(
    ("count", "gpus", "listed", "instances"),
    [(1, "", [], 1), (4, "", [], 4), (4, "1,3", [1, 3], 2), (2, "0", [0], 1)],
)
def test_every_gpu_gets_an_instance(monkeypatch, tmp_path, folder, count, gpus, listed, instances):
    (model,) = prepare_on_gpus(monkeypatch, tmp_path, folder, count, gpus=gpus)
    (group,) = written(tmp_path).instance_group
    assert (group.kind, group.count, list(group.gpus)) == (KIND.KIND_GPU, 1, listed)
    assert model.instance_count == instances
    assert written(tmp_path).dynamic_batching.max_queue_delay_microseconds == 500
    assert parameters(written(tmp_path))["cache_dir"] == ""
    assert parameters(written(tmp_path))["FORCE_CPU_ONLY_INPUT_TENSORS"] == "yes"


def test_a_gpu_that_is_not_here_is_refused(monkeypatch, tmp_path, folder):
    with pytest.raises(ConfigError, match="POLARVEC_GPUS names GPU 2, but this process may use 2, counted from 0"):
        prepare_on_gpus(monkeypatch, tmp_path, folder, 2, gpus="0,2")


def run_prepare(monkeypatch, tmp_path, folder, *arguments, **settings):
    for name, value in settings.items():
        monkeypatch.setenv(f"POLARVEC_{name.upper()}", value)
    monkeypatch.setenv("POLARVEC_CACHE_DIR", str(tmp_path / "cache"))
    # The runner closes the standard error that the log lines of all later tests would go to.
    monkeypatch.setattr(cli, "configure_logging", lambda *_: None)
    return CliRunner().invoke(cli.app, ["prepare", str(tmp_path / "out"), str(folder), *arguments])


def test_a_repository_for_a_gpu_can_be_written_where_there_is_none(monkeypatch, tmp_path, folder):
    done = run_prepare(monkeypatch, tmp_path, folder, "--elsewhere", engine="cuda", precision="fp16", gpus="0,5")
    assert done.exit_code == 0, done.exception
    config = written(tmp_path / "out")
    assert list(config.instance_group[0].gpus) == [0, 5]
    assert parameters(config)["precision"] == "fp16"
    (model,) = read_deployment(tmp_path / "out" / "models.json")
    assert (model.engine, model.precision, model.instance_count) == ("cuda", "fp16", 2)
    assert "for another machine" in done.output


@pytest.mark.skipif(not find_gpus().obstacle, reason="this machine has a GPU that the engine cuda can use")
def test_a_gpu_engine_is_refused_here_before_triton_sees_it(monkeypatch, tmp_path, folder):
    done = run_prepare(monkeypatch, tmp_path, folder, engine="cuda")
    assert isinstance(done.exception, ConfigError)
    assert "POLARVEC_ENGINE=cuda and POLARVEC_PRECISION=auto do not go here." in str(done.exception)
    assert "cannot run here, because" in str(done.exception)
    assert not (tmp_path / "out" / "repository").exists()
