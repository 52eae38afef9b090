"""Converted weights are written once, mapped by later starts, and never taken from a file that is not whole."""

import errno
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from encoder_folders import write_model
from polarvec_encoder.architecture import read_architecture
from polarvec_encoder.conversion import convert
from polarvec_encoder.errors import EncoderError, ModelRefused
from polarvec_encoder.quantisation import to_bfloat16, to_int8
from polarvec_encoder.tensor_table import is_linear, scale_name
from polarvec_encoder.weights import open_weights
from safetensors.torch import load_file, save_file

ENCODER = Path(__file__).parents[2] / "model_repository" / "encoder" / "1"
QUERY = "encoder.layer.1.attention.self.query.weight"
EACH_PRECISION = pytest.mark.parametrize("precision", ["bf16", "int8"])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    write_model(folder)
    return folder


@pytest.fixture
def cache(tmp_path):
    return tmp_path / "engines" / "fingerprint"


@pytest.fixture(autouse=True)
def temporary(tmp_path_factory, monkeypatch):
    """A temporary folder of the test's own, which must be empty at its end."""
    directory = tmp_path_factory.mktemp("temporary")
    monkeypatch.setattr(tempfile, "tempdir", str(directory))
    yield directory
    assert list(directory.iterdir()) == []


def source(folder):
    return open_weights(folder, read_architecture(folder))


def assert_converted(weights, folder, precision):
    """Every tensor is what the model folder's becomes in this precision."""
    original = source(folder)
    for name in original.tensors:
        if not is_linear(name):
            np.testing.assert_array_equal(weights.stored(name), original.stored(name))
        elif precision == "bf16":
            assert weights.tensors[name].dtype == "BF16"
            np.testing.assert_array_equal(weights.stored(name), to_bfloat16(original.float32(name)))
        else:
            integers, scales = to_int8(original.float32(name))
            np.testing.assert_array_equal(weights.stored(name), integers)
            np.testing.assert_array_equal(weights.float32(scale_name(name)), scales)
    assert sum(is_linear(name) for name in original.tensors) == 12


def the_file(cache):
    (path,) = cache.iterdir()
    return path


def identity(path):
    status = path.stat()
    return status.st_ino, status.st_mtime_ns


@EACH_PRECISION
def test_the_second_start_maps_the_file_of_the_first(folder, cache, precision, monkeypatch):
    assert_converted(convert(source(folder), precision, cache), folder, precision)
    made = identity(the_file(cache))
    assert the_file(cache).stat().st_mode & 0o777 == 0o644
    monkeypatch.setattr(tempfile, "NamedTemporaryFile", None)
    second = convert(source(folder), precision, cache)
    assert_converted(second, folder, precision)
    assert identity(the_file(cache)) == made
    assert str(the_file(cache)) in Path("/proc/self/maps").read_text()


@EACH_PRECISION
def test_the_file_is_safetensors(folder, cache, precision):
    weights = convert(source(folder), precision, cache)
    stored = load_file(the_file(cache))
    checksum = stored.pop("crc32")
    assert (checksum.dtype, checksum.numel()) == (torch.uint8, 4)
    assert len(stored) == {"bf16": 12, "int8": 24}[precision]
    for name, tensor in stored.items():
        if tensor.dtype == torch.bfloat16:
            tensor = tensor.view(torch.int16)
        np.testing.assert_array_equal(tensor.numpy().view(weights.stored(name).dtype), weights.stored(name))


def test_the_precisions_do_not_meet(folder, cache):
    for precision in ("int8", "bf16", "int8"):
        assert_converted(convert(source(folder), precision, cache), folder, precision)
    assert len(list(cache.iterdir())) == 2


def flip(place):
    def damage(data):
        data[place] ^= 1
        return data

    return damage


def other_header(data):
    """As long as the right one, with two letters of a name changed."""
    return data.replace(b"query.weight", b"qvery.weight", 1)


DAMAGES = {
    "a bit of the first weights": flip(20_000),
    "a bit near the end": flip(-5),
    "a bit of the checksum": flip(-1),
    "a bit of the header": flip(30),
    "another header": other_header,
    "cut short": lambda data: data[:-100],
    "longer": lambda data: data + b"\0" * 64,
    "empty": lambda data: b"",
    "zeros": lambda data: bytes(len(data)),
}


@EACH_PRECISION
@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_file_is_made_anew(folder, cache, precision, damage):
    convert(source(folder), precision, cache)
    path = the_file(cache)
    whole = path.read_bytes()
    damaged = bytes(damage(bytearray(whole)))
    assert damaged != whole
    path.write_bytes(damaged)
    assert_converted(convert(source(folder), precision, cache), folder, precision)
    assert the_file(cache).read_bytes() == whole


def test_the_file_of_another_model_is_made_anew(folder, cache, tmp_path):
    (tmp_path / "wide").mkdir()
    write_model(tmp_path / "wide", intermediate_size=256)
    convert(source(tmp_path / "wide"), "int8", cache)
    assert_converted(convert(source(folder), "int8", cache), folder, "int8")


def in_the_way(cache, monkeypatch):
    cache.parent.parent.mkdir(exist_ok=True)
    cache.parent.write_bytes(b"")


def read_only(cache, monkeypatch):
    """Permissions would not stop a test that runs as root."""
    cache.mkdir(parents=True)
    opened = tempfile.NamedTemporaryFile

    def refuse(*arguments, **options):
        if options.get("dir") == cache:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))
        return opened(*arguments, **options)

    monkeypatch.setattr(tempfile, "NamedTemporaryFile", refuse)


def full_disk(cache, monkeypatch):
    take = os.posix_fallocate

    def refuse(number, *arguments):
        if str(cache) in os.readlink(f"/proc/self/fd/{number}"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        take(number, *arguments)

    monkeypatch.setattr(os, "posix_fallocate", refuse)


@pytest.mark.parametrize("obstacle", [in_the_way, read_only, full_disk])
def test_where_the_folder_takes_no_file_the_model_loads_without(folder, cache, monkeypatch, obstacle):
    obstacle(cache, monkeypatch)
    weights = source(folder)
    unconverted = convert(weights, "bf16", cache)
    assert unconverted.tensors == weights.tensors
    assert f"not kept in {cache}" in unconverted.note
    assert_converted(convert(source(folder), "int8", cache), folder, "int8")
    assert not cache.is_dir() or list(cache.iterdir()) == []


def test_what_a_killed_process_left_is_removed_and_what_another_writes_is_not(folder, cache):
    cache.mkdir(parents=True, exist_ok=True)
    old, recent = cache / "converting-old", cache / "converting-recent"
    for path in (old, recent):
        path.write_bytes(b"half")
    os.utime(old, (0, 0))
    convert(source(folder), "int8", cache)
    assert not old.exists()
    assert recent.exists()


def test_a_damaged_file_in_a_folder_that_takes_no_file_is_not_used(folder, cache, monkeypatch):
    convert(source(folder), "int8", cache)
    path = the_file(cache)
    path.write_bytes(flip(20_000)(bytearray(path.read_bytes())))
    full_disk(cache, monkeypatch)
    assert_converted(convert(source(folder), "int8", cache), folder, "int8")


def test_without_a_folder_nothing_is_kept(folder, temporary):
    weights = source(folder)
    assert convert(weights, "f32", None) is weights
    assert convert(weights, "bf16", None) is weights
    assert_converted(convert(weights, "int8", None), folder, "int8")


@pytest.fixture(params=[torch.float16, torch.bfloat16], ids=["f16", "bf16"])
def half(request, tmp_path):
    """A folder whose weights are stored in half precision."""
    write_model(tmp_path)
    stored = {name: tensor.to(request.param) for name, tensor in load_file(tmp_path / "model.safetensors").items()}
    save_file(stored, tmp_path / "model.safetensors", metadata={"format": "pt"})
    return tmp_path, "F16" if request.param == torch.float16 else "BF16"


def test_weights_stored_in_half_precision_are_converted_from_what_they_are(half, cache):
    folder, _ = half
    assert_converted(convert(source(folder), "bf16", cache), folder, "bf16")
    assert_converted(convert(source(folder), "int8", cache), folder, "int8")


def test_weights_that_serve_as_they_are_stored_are_left_alone(half, cache):
    folder, stored = half
    weights = source(folder)
    assert convert(weights, "f32", cache) is weights
    assert (convert(weights, "bf16", cache) is weights) == (stored == "BF16")
    assert cache.exists() == (stored != "BF16")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@EACH_PRECISION
def test_a_weight_that_is_not_finite_is_refused(tmp_path, cache, precision, value):
    write_model(tmp_path)
    stored = load_file(tmp_path / "model.safetensors")
    stored[QUERY][3, 5] = value
    save_file(stored, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelRefused, match=f"Tensor {QUERY} holds numbers that are not finite: fetch"):
        convert(source(tmp_path), precision, cache)
    assert list(cache.iterdir()) == []


def test_a_disk_that_is_full_everywhere_is_said(folder, cache, monkeypatch):
    def refuse(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", refuse)
    for place in (cache, None):
        with pytest.raises(
            EncoderError, match=r"int8 weights cannot be written to the temporary folder \(No space left"
        ):
            convert(source(folder), "int8", place)
    weights = source(folder)
    assert convert(weights, "bf16", cache).tensors == weights.tensors
    assert list(cache.iterdir()) == []


@pytest.mark.parametrize(("precision", "kept"), [("f32", False), ("bf16", True), ("int8", True), ("int8", False)])
def test_releasing_pages_changes_nothing_that_is_read(folder, cache, precision, kept):
    weights = convert(source(folder), precision, cache if kept else None)
    views = {name: weights.stored(name) for name in weights.tensors}
    before = {name: view.copy() for name, view in views.items()}
    for _ in range(2):
        weights.release_pages()
        for name, view in views.items():
            np.testing.assert_array_equal(view, before[name])
            np.testing.assert_array_equal(weights.stored(name), before[name])
    if kept:
        # A file that is replaced, as by another start, lives on for those that map it.
        path = the_file(cache)
        path.rename(path.with_suffix(".old"))
        path.with_suffix(".old").unlink()
        weights.release_pages()
        for name, view in views.items():
            np.testing.assert_array_equal(view, before[name])


AT_ONCE = """
import sys, time, zlib
from pathlib import Path
from polarvec_encoder.architecture import read_architecture
from polarvec_encoder.conversion import convert
from polarvec_encoder.weights import open_weights
folder, cache, go, me = (Path(argument) for argument in sys.argv[1:])
weights = open_weights(folder, read_architecture(folder))
me.touch()
while not go.exists():
    time.sleep(0.001)
converted = convert(weights, "int8", cache)
print(sum(zlib.crc32(converted.stored(name).tobytes()) for name in sorted(converted.tensors)))
"""


def test_starts_at_the_same_time_end_with_one_whole_file(folder, cache, tmp_path, monkeypatch):
    go = tmp_path / "go"
    marks = [tmp_path / f"{number} is there" for number in range(3)]
    environment = {**os.environ, "PYTHONPATH": str(ENCODER)}
    starts = [
        subprocess.Popen(
            [sys.executable, "-c", AT_ONCE, folder, cache, go, mark],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        for mark in marks
    ]
    deadline = time.monotonic() + 30
    while not all(mark.exists() for mark in marks):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    go.touch()
    outputs = [start.communicate(timeout=30) for start in starts]
    assert [start.returncode for start in starts] == [0, 0, 0], outputs
    assert len({said for said, _ in outputs}) == 1
    made = identity(the_file(cache))
    monkeypatch.setattr(tempfile, "NamedTemporaryFile", None)
    assert_converted(convert(source(folder), "int8", cache), folder, "int8")
    assert identity(the_file(cache)) == made
