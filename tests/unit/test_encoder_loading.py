"""From parameters or the command line to a proven engine, and the refusals on the way."""

import base64
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from encoder_folders import VOCABULARY, write_model
from polarvec_encoder.__main__ import main
from polarvec_encoder.batch import PackedBatch
from polarvec_encoder.engine import encode_all
from polarvec_encoder.errors import EncoderError, ModelRefused, SelfTestFailed
from polarvec_encoder.golden import check_golden
from polarvec_encoder.loading import EncoderSettings, load
from polarvec_encoder.tensors import check_tensors

IDS = "0,10,11,12,2;0,5,2"
ENCODER = Path(__file__).parents[2] / "model_repository" / "encoder" / "1"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    write_model(folder)
    return folder


@pytest.fixture(scope="module")
def golden(folder, tmp_path_factory):
    path = tmp_path_factory.mktemp("golden") / "deep" / "golden.json"
    assert (
        main(["inspect", "--model", str(folder), "--pooling", "mean", "--golden", str(path), "--golden-ids", IDS]) == 0
    )
    return path


def parameters(folder, **changes):
    values = {
        "model_path": str(folder),
        "golden_path": "",
        "engine": "openvino",
        "precision": "f32",
        "pooling": "mean",
        "threads": "1",
        "dimensions": "64",
        "max_tokens": "512",
    }
    return values | changes


def test_inspect_says_one_line_of_json(folder, capsys):
    assert main(["inspect", "--model", str(folder), "--pooling", "cls", "--precision", "f32", "--threads", "1"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert out.count("\n") == 1
    report = json.loads(out)
    assert report.pop("why")
    assert report == {
        "engine": "openvino",
        "precision": "f32",
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
        ({"engine": "cuda"}, EncoderError, "not built yet"),
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
