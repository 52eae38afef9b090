"""The model repository for Triton: settings arrive in config.pbtxt, and the encoder is asked before."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from google.protobuf import text_format
from polarvec_server.errors import ConfigError
from polarvec_server.models import pbtxt
from polarvec_server.models.folder import ModelFolderError, read_folder
from polarvec_server.models.inspection import InspectionError
from polarvec_server.models.repository import EncoderConfig, encoder_source, inspect, write_repository
from safetensors.numpy import save_file
from tritonclient.grpc import model_config_pb2
from unit.model_folders import change, small_weights, write_small_model


@pytest.fixture(scope="module")
def pattern(tmp_path_factory):
    return write_small_model(tmp_path_factory.mktemp("pattern") / "small")


@pytest.fixture
def folder(pattern, tmp_path):
    return Path(shutil.copytree(pattern, tmp_path / "small"))


@pytest.fixture
def config(folder, tmp_path):
    return EncoderConfig(
        triton_name="encoder_3",
        folder=read_folder(folder),
        engine="openvino",
        precision="bf16",
        fingerprint="0123456789ab",
        golden_path=tmp_path / "golden.json",
        gelu="erf",
        threads=2,
        streams=1,
        cache_dir=tmp_path / "engines" / "0123456789ab",
        gpus=(),
        max_batch_packs=17,
        queue_delay_us=321,
    )


def _parsed(entry):
    return text_format.Parse((entry / "config.pbtxt").read_text(encoding="utf-8"), model_config_pb2.ModelConfig())


def test_template_is_valid_alone():
    template = _parsed(encoder_source())
    assert template.name == "encoder"
    assert {tensor.name for tensor in template.input} == {"token_ids", "lengths", "tag"}


def test_triton_prefetches_batches():
    """Any of these switches it off, and then its batcher sleeps for half a second now and then: decision 0012."""
    batching = _parsed(encoder_source()).dynamic_batching
    assert batching.priority_levels == 0
    assert batching.default_queue_policy == model_config_pb2.ModelQueuePolicy()


def test_every_setting_arrives(config, folder, tmp_path):
    write_repository(tmp_path / "repository", [config], encoder_source())
    written = _parsed(tmp_path / "repository" / "encoder_3")
    template = _parsed(encoder_source())
    assert (written.name, written.max_batch_size) == ("encoder_3", 17)
    assert written.dynamic_batching.max_queue_delay_microseconds == 321
    (group,) = written.instance_group
    assert (group.count, group.kind) == (1, model_config_pb2.ModelInstanceGroup.KIND_CPU)
    (embeddings,) = [tensor for tensor in written.output if tensor.name == "embeddings"]
    assert list(embeddings.dims) == [-1, 32]
    assert written.input == template.input
    assert {key: value.string_value for key, value in written.parameters.items()} == {
        "model_path": str(folder),
        "golden_path": str(tmp_path / "golden.json"),
        "engine": "openvino",
        "precision": "bf16",
        "pooling": "mean",
        "gelu": "erf",
        "threads": "2",
        "streams": "1",
        "cache_dir": str(tmp_path / "engines" / "0123456789ab"),
        "id": "small",
        "fingerprint": "0123456789ab",
        "dimensions": "32",
        "max_tokens": "48",
    }
    assert (tmp_path / "repository" / "encoder_3" / "1" / "model.py").is_file()
    assert not list((tmp_path / "repository").rglob("__pycache__"))


@pytest.mark.parametrize("gpus", [(), (0,), (0, 2)], ids=["every one", "one", "two"])
def test_gpu_engines_get_an_instance_on_each_gpu(config, tmp_path, gpus):
    gpu_config = replace(config, engine="cuda", precision="fp16", gelu="tanh", cache_dir=None, gpus=gpus)
    write_repository(tmp_path, [gpu_config], encoder_source())
    written = _parsed(tmp_path / "encoder_3")
    (group,) = written.instance_group
    assert (group.count, group.kind) == (1, model_config_pb2.ModelInstanceGroup.KIND_GPU)
    # An empty list means every GPU that Triton sees.
    assert tuple(group.gpus) == gpus
    values = {key: value.string_value for key, value in written.parameters.items()}
    assert values["FORCE_CPU_ONLY_INPUT_TENSORS"] == "yes"
    assert (values["engine"], values["precision"], values["gelu"], values["cache_dir"]) == ("cuda", "fp16", "tanh", "")


def test_strange_names_survive(config, folder, tmp_path):
    odd = folder.rename(folder.with_name('모델 "a\\b"\nname: "x"'))
    write_repository(tmp_path / "r", [replace(config, folder=read_folder(odd))], encoder_source())
    written = _parsed(tmp_path / "r" / "encoder_3")
    assert written.parameters["model_path"].string_value == str(odd)
    assert written.name == "encoder_3"


def test_writing_again_replaces(config, tmp_path):
    write_repository(tmp_path, [config, replace(config, triton_name="other")], encoder_source())
    (tmp_path / "encoder_3" / "1" / "stale.py").write_text("")
    write_repository(tmp_path, [replace(config, threads=1)], encoder_source())
    assert not (tmp_path / "encoder_3" / "1" / "stale.py").exists()
    assert _parsed(tmp_path / "encoder_3").parameters["threads"].string_value == "1"
    assert (tmp_path / "other").is_dir()


def test_template_without_a_setting_is_refused():
    with pytest.raises(ConfigError, match="no max_batch_size"):
        pbtxt.with_scalars('name: "x"', {"max_batch_size": 3})
    with pytest.raises(ConfigError, match="no tensor embeddings"):
        pbtxt.with_output_dimensions("", "embeddings", 3)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('a: 1\nparameters { key: "x" value: { string_value: "}" } }\nb: 2\n', "a: 1\nb: 2\n"),
        ('parameters: {\n  key: "x"  # }\n}\nb: 2\n', "b: 2\n"),
        ("instance_group [\n  { count: 1 }\n]\nb: 2\n", "b: 2\n"),
        ("parameters { a: 1 }\nparameters { a: 2 }\nb: 2\n", "b: 2\n"),
    ],
)
def test_blocks_are_cut_out_whole(text, expected):
    assert pbtxt.without_blocks(text, ("parameters", "instance_group")) == expected


def test_inspection_picks_engine_and_precision(folder):
    found = inspect(read_folder(folder), "auto", "f32", encoder_source())
    assert (found.engine in ("openvino", "torch", "cuda"), found.precision) == (True, "f32")
    assert found.why
    assert found.details["dimensions"] == 32


def test_inspection_for_another_machine_checks_names_only(folder):
    found = inspect(read_folder(folder), "cuda", "fp8", encoder_source(), gelu="erf", elsewhere=True)
    assert (found.engine, found.precision, found.gelu, found.gpu_count) == ("cuda", "fp8", "erf", 0)
    with pytest.raises(ConfigError, match="POLARVEC_ENGINE=auto and POLARVEC_PRECISION=fp8 do not go here"):
        inspect(read_folder(folder), "auto", "fp8", encoder_source(), elsewhere=True)


def test_golden_vectors_are_made_once(folder, tmp_path):
    golden = tmp_path / "deep" / "golden.json"
    inspect(read_folder(folder), "openvino", "f32", encoder_source(), golden)
    content = json.loads(golden.read_text())
    assert len(content["token_ids"]) == len(content["vectors"]) == 2
    before = golden.stat().st_mtime_ns
    inspect(read_folder(folder), "openvino", "f32", encoder_source(), golden)
    assert golden.stat().st_mtime_ns == before


def _missing(folder):
    weights = small_weights(13)
    del weights["encoder.layer.1.output.dense.bias"]
    save_file(weights, folder / "model.safetensors")


def _unexpected(folder):
    save_file(
        small_weights(13) | {"encoder.layer.2.x": small_weights(13)["embeddings.LayerNorm.bias"]},
        folder / "model.safetensors",
    )


@pytest.mark.parametrize(
    ("alter", "complaint"),
    [
        (_missing, r"encoder\.layer\.1\.output\.dense\.bias"),
        (_unexpected, r"encoder\.layer\.2\.x"),
        (lambda folder: save_file(small_weights(12), folder / "model.safetensors"), r"word_embeddings"),
        (lambda folder: change(folder, "config.json", model_type="mpnet"), "mpnet"),
        (lambda folder: (folder / "model.safetensors").write_bytes(b"\0" * 20), "safetensors"),
    ],
    ids=["missing", "unexpected", "misshapen", "unknown family", "no safetensors"],
)
def test_encoder_refuses_in_a_sentence(folder, alter, complaint):
    alter(folder)
    with pytest.raises(ModelFolderError, match=complaint) as caught:
        inspect(read_folder(folder), "auto", "auto", encoder_source())
    assert "Traceback" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_encoder_that_cannot_run_is_said(folder, tmp_path):
    with pytest.raises(InspectionError, match="could not look at small"):
        inspect(read_folder(folder), "auto", "auto", tmp_path)
