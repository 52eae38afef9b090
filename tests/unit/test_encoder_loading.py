"""From parameters or the command line to a proven engine, and the refusals on the way."""

import base64
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from encoder_folders import VOCABULARY, write_model
from polarvec_encoder import choice
from polarvec_encoder import golden as golden_module
from polarvec_encoder.__main__ import main
from polarvec_encoder.architecture import read_architecture
from polarvec_encoder.batch import PackedBatch
from polarvec_encoder.choice import Choice
from polarvec_encoder.engine import encode_all
from polarvec_encoder.errors import ChoiceRefused, EncoderError, ModelRefused, SelfTestFailed
from polarvec_encoder.golden import check_golden
from polarvec_encoder.hardware import read_hardware
from polarvec_encoder.loading import EncoderSettings, build_engine, load
from polarvec_encoder.tensors import check_tensors

IDS = "0,10,11,12,2;0,5,2"
INSPECT = ["inspect", "--engine", "openvino", "--model"]
ENCODER = Path(__file__).parents[2] / "model_repository" / "encoder" / "1"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    write_model(folder)
    return folder


@pytest.fixture(scope="module")
def golden(folder, tmp_path_factory):
    path = tmp_path_factory.mktemp("golden") / "deep" / "golden.json"
    assert main([*INSPECT, str(folder), "--pooling", "mean", "--golden", str(path), "--golden-ids", IDS]) == 0
    return path


def parameters(folder, **changes):
    values = {
        "model_path": str(folder),
        "golden_path": "",
        "engine": "openvino",
        "precision": "f32",
        "pooling": "mean",
        "gelu": "auto",
        "threads": "1",
        "streams": "0",
        "cache_dir": "",
        "dimensions": "64",
        "max_tokens": "512",
    }
    return values | changes


def test_inspect_says_one_line_of_json(folder, capsys):
    assert main([*INSPECT, str(folder), "--pooling", "cls", "--precision", "f32", "--threads", "1"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert out.count("\n") == 1
    report = json.loads(out)
    assert report.pop("why")
    assert report == {
        "engine": "openvino",
        "precision": "f32",
        "gelu": "erf",
        "gpus": 0,
        "architecture": "XLMRobertaModel",
        "model_type": "xlm-roberta",
        "dimensions": 64,
        "layers": 2,
        "heads": 4,
        "vocabulary": VOCABULARY,
        "max_tokens": 512,
        "stored": ["F32"],
        "threads": 1,
    }


def test_inspect_refuses_with_code_2_and_one_sentence(tmp_path):
    command = [sys.executable, "-m", "polarvec_encoder", "inspect", "--model", str(tmp_path), "--pooling", "cls"]
    environment = {**os.environ, "PYTHONPATH": str(ENCODER)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr == f"{tmp_path} has no config.json: point the server at a complete model folder.\n"


def test_a_choice_that_cannot_run_here_has_a_code_of_its_own(folder, capsys):
    arguments = [*INSPECT, str(folder), "--pooling", "cls", "--precision", "fp16"]
    assert main(arguments) == 3
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert "openvino does not compute in fp16" in err


def test_for_another_machine_inspect_checks_names_only(folder, capsys):
    arguments = ["inspect", "--model", str(folder), "--pooling", "cls", "--engine", "cuda", "--elsewhere"]
    assert main([*arguments, "--precision", "fp8", "--gelu", "erf"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["engine"], report["precision"], report["gelu"], report["gpus"]) == ("cuda", "fp8", "erf", 0)
    assert main(arguments) == 3
    assert "must be named" in capsys.readouterr().err


class FakeEngine:
    def __init__(self, *arguments):
        self.arguments = arguments


@pytest.mark.parametrize(("threads", "asked", "streams"), [(1, 0, 1), (8, 0, 1), (15, 0, 1), (16, 0, 2), (16, 4, 4)])
def test_the_cpu_engine_gets_one_stream_for_every_8_threads(folder, tmp_path, monkeypatch, threads, asked, streams):
    monkeypatch.setattr("polarvec_encoder.engine_openvino.OpenVinoEngine", FakeEngine)
    picked = Choice("openvino", "int8", "")
    architecture = read_architecture(folder)
    engine = build_engine(folder, architecture, "cls", picked, threads, streams=asked, cache_dir=tmp_path)
    assert engine.arguments == (folder, architecture, "cls", "int8", threads, streams, tmp_path)


def test_the_gpu_engine_gets_its_gpu_and_the_form_of_gelu(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "polarvec_encoder.cuda.engine", SimpleNamespace(CudaEngine=FakeEngine))
    architecture = read_architecture(folder)
    engine = build_engine(folder, architecture, "cls", Choice("cuda", "bf16", "", "tanh", 2), 1, device="cuda:1")
    assert engine.arguments == (folder, architecture, "cls", "bf16", "tanh", "cuda:1")


def test_a_gpu_that_cannot_be_used_gets_a_sentence(folder, monkeypatch):
    def full(*_):
        raise RuntimeError("CUDA out of memory. Tried to allocate 2 GiB\nand much more")

    monkeypatch.setitem(sys.modules, "polarvec_encoder.cuda.engine", SimpleNamespace(CudaEngine=full))
    with pytest.raises(EncoderError, match=r"could not start on cuda:0: CUDA out of memory. Tried to allocate 2 GiB$"):
        build_engine(folder, read_architecture(folder), "cls", Choice("cuda", "bf16", ""), 1, device="cuda:0")


OF_TRITON = type("PTXASError", (type("TritonError", (Exception,), {"__module__": "triton.errors"}),), {})


@pytest.mark.parametrize(
    ("raised", "sentence"),
    [
        (OF_TRITON("out of resource: shared memory\nand more"), "PTXASError: out of resource: shared memory$"),
        (subprocess.CalledProcessError(1, ["gcc"]), "install gcc and the headers of Python"),
    ],
    ids=["kernel", "gcc"],
)
def test_a_kernel_that_cannot_be_built_gets_a_sentence(folder, monkeypatch, raised, sentence):
    def fail(*_):
        raise raised

    monkeypatch.setitem(sys.modules, "polarvec_encoder.cuda.engine", SimpleNamespace(CudaEngine=fail))
    with pytest.raises(EncoderError, match=f"could not start on cuda: .*{sentence}"):
        build_engine(folder, read_architecture(folder), "cls", Choice("cuda", "bf16", ""), 1)


def test_a_mistake_of_ours_keeps_its_class(folder, monkeypatch):
    def fail(*_):
        raise KeyError("ours")

    monkeypatch.setitem(sys.modules, "polarvec_encoder.cuda.engine", SimpleNamespace(CudaEngine=fail))
    with pytest.raises(KeyError):
        build_engine(folder, read_architecture(folder), "cls", Choice("cuda", "bf16", ""), 1)


@pytest.mark.parametrize(("precision", "least"), [("f32", 0.9999), ("int8", 0.99), ("fp8", 0.98)])
def test_each_precision_has_its_own_tolerance(folder, golden, precision, least):
    engine = load(EncoderSettings.from_parameters(parameters(folder))).engine
    check_golden(golden, engine, precision)
    stored = json.loads(golden.read_text())
    vectors = [np.frombuffer(base64.b64decode(vector), "<f4") for vector in stored["vectors"]]
    for cosine, passes in ((least + (1 - least) / 4, True), (least - (1 - least) / 4, False)):
        other = np.eye(64, dtype=np.float32)[0] - vectors[0][0] * vectors[0]
        turned = cosine * vectors[0] + np.sqrt(1 - cosine**2) * other / np.linalg.norm(other)
        altered = golden.with_name(f"{cosine}.json")
        rows = [base64.b64encode(row.astype("<f4").tobytes()).decode() for row in (turned, vectors[1])]
        altered.write_text(json.dumps(stored | {"vectors": rows}))
        if passes:
            assert check_golden(altered, engine, precision) == pytest.approx(cosine, abs=1e-4)
        else:
            with pytest.raises(SelfTestFailed, match="differ from the stored"):
                check_golden(altered, engine, precision)
        altered.unlink()


def test_every_precision_has_a_tolerance():
    assert set(golden_module._MIN_COSINE) == set(choice.PRECISIONS)


def test_inspect_alone_imports_no_engine(folder):
    """It runs at every start of the server: OpenVINO alone would cost it half a second."""
    code = (
        "import sys; from polarvec_encoder.__main__ import main;"
        f"assert main(['inspect', '--model', {str(folder)!r}, '--pooling', 'cls']) == 0;"
        "sys.exit(sorted({'openvino', 'torch', 'transformers'} & sys.modules.keys()).__len__())"
    )
    environment = {**os.environ, "PYTHONPATH": str(ENCODER)}
    assert (
        subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, check=False).returncode == 0
    )


def test_the_golden_file_holds_unit_vectors_and_is_kept(folder, golden):
    stored = json.loads(golden.read_text())
    assert stored["token_ids"] == [[0, 10, 11, 12, 2], [0, 5, 2]]
    vectors = np.stack([np.frombuffer(base64.b64decode(vector), "<f4") for vector in stored["vectors"]])
    assert vectors.shape == (2, 64)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-6)
    before = golden.stat().st_mtime_ns
    assert main(["inspect", "--model", str(folder), "--pooling", "mean", "--golden", str(golden)]) == 0
    assert golden.stat().st_mtime_ns == before
    assert [path.name for path in golden.parent.iterdir()] == ["golden.json"]


@pytest.mark.parametrize("ids", ["", "0,x", f"0,{VOCABULARY}", "0,-1", "0," * 600 + "2"], ids=repr)
def test_bad_golden_ids_are_refused(folder, tmp_path, capsys, ids):
    arguments = ["inspect", "--model", str(folder), "--pooling", "mean", "--golden", str(tmp_path / "g.json")]
    assert main([*arguments, f"--golden-ids={ids}"]) == 2
    assert "golden" in capsys.readouterr().err
    assert not (tmp_path / "g.json").exists()


@pytest.mark.parametrize("engine", ["openvino", "torch"])
def test_a_model_that_gives_its_golden_vectors_loads(folder, golden, engine):
    values = parameters(folder, golden_path=str(golden), engine=engine)
    loaded = load(EncoderSettings.from_parameters(values))
    assert "golden cosine 1.0000" in loaded.report
    assert encode_all(loaded.engine, PackedBatch.of_texts([[0, 5, 2]])).shape == (1, 64)


@pytest.mark.skipif(not read_hardware().int8, reason="this CPU has neither AVX512_VNNI, AVX_VNNI nor AMX_INT8")
def test_int8_keeps_its_weights_in_the_folder_of_config_pbtxt(folder, golden, tmp_path):
    values = parameters(folder, golden_path=str(golden), precision="int8", cache_dir=str(tmp_path / "engines"))
    for _ in range(2):
        loaded = load(EncoderSettings.from_parameters(values))
        assert "int8" in loaded.report
        assert [path.name for path in (tmp_path / "engines").iterdir()] == ["int8-1.safetensors"]


def test_another_model_fails_the_golden_test(golden, tmp_path):
    write_model(tmp_path, num_hidden_layers=1)
    with pytest.raises(SelfTestFailed, match="differ from the stored"):
        load(EncoderSettings.from_parameters(parameters(tmp_path, golden_path=str(golden))))


def test_another_pooling_fails_the_golden_test(folder, golden):
    with pytest.raises(SelfTestFailed, match="differ from the stored"):
        load(EncoderSettings.from_parameters(parameters(folder, golden_path=str(golden), pooling="cls")))


@pytest.mark.parametrize("content", [None, "{}", "[", '{"format": 2}'])
def test_an_unusable_golden_file_is_refused(folder, tmp_path, content):
    path = tmp_path / "golden.json"
    if content is not None:
        path.write_text(content)
    engine = load(EncoderSettings.from_parameters(parameters(folder))).engine
    with pytest.raises(SelfTestFailed, match="delete it"):
        check_golden(path, engine, "f32")


def test_weights_that_are_not_finite_are_refused(tmp_path):
    model = write_model(tmp_path)
    model.encoder.layer[0].output.dense.bias.data[3] = float("nan")
    model.save_pretrained(tmp_path)
    with pytest.raises(SelfTestFailed, match="not finite"):
        load(EncoderSettings.from_parameters(parameters(tmp_path)))


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"model_path": ""}, EncoderError, "no parameter model_path"),
        ({"pooling": "max"}, EncoderError, "no pooling 'max'"),
        ({"threads": "-1"}, EncoderError, "threads"),
        ({"max_tokens": "many"}, EncoderError, "max_tokens"),
        ({"dimensions": "32"}, ModelRefused, "64 dimensions"),
        ({"max_tokens": "513"}, ModelRefused, "512 tokens"),
        ({"engine": "onnx"}, ChoiceRefused, "no engine 'onnx'"),
        ({"gelu": ""}, EncoderError, "no parameter gelu"),
        ({"gelu": "tanh"}, ChoiceRefused, "exact GELU only"),
        ({"streams": "two"}, EncoderError, "streams"),
    ],
)
def test_wrong_parameters_are_refused(folder, changes, error, message):
    with pytest.raises(error, match=message):
        load(EncoderSettings.from_parameters(parameters(folder, **changes)))


class Faithful:
    def __init__(self, array):
        self.array = array

    @classmethod
    def from_dlpack(cls, name, array):
        return cls(array)

    def as_numpy(self):
        return self.array


class StridesOfZero(Faithful):
    """What Triton 2.51 makes of an array of numpy 2."""

    def as_numpy(self):
        return np.broadcast_to(self.array[0, 0, 0], self.array.shape)


class Broken(Faithful):
    @classmethod
    def from_dlpack(cls, name, array):
        raise ValueError("PyCapsule_GetPointer called with incorrect name")


def test_a_numpy_that_triton_misreads_is_refused():
    check_tensors(Faithful, "2.4.6")
    check_tensors(Broken, "1.26.4")  # never called there: the call itself breaks the stub
    for tensor_class in (StridesOfZero, Broken):
        with pytest.raises(EncoderError, match=r"numpy 2\.4\.6 .* below 2"):
            check_tensors(tensor_class, "2.4.6")
