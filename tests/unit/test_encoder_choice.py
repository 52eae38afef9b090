"""What "auto" becomes on which machine, and what is refused."""

import importlib.util
import os
import sysconfig

import pytest
from polarvec_encoder.choice import choose, choose_for_elsewhere
from polarvec_encoder.errors import ChoiceRefused
from polarvec_encoder.gpu import Gpu, GpuFinding, find_gpus
from polarvec_encoder.hardware import Hardware, read_hardware

AMX = Hardware(2, frozenset({"avx512f", "amx_bf16", "avx512_bf16", "amx_int8", "avx512_vnni"}))
ZEN4 = Hardware(2, frozenset({"avx512f", "avx512_bf16", "avx512_vnni"}))
CLIENT = Hardware(2, frozenset({"avx2", "avx_vnni"}))
PLAIN = Hardware(2, frozenset({"avx2"}))
H100, A100, V100 = Gpu("NVIDIA H100", (9, 0)), Gpu("NVIDIA A100", (8, 0)), Gpu("Tesla V100", (7, 0))
NO_GPU = GpuFinding((), "no NVIDIA driver is here (libcuda.so.1)")
NO_CUDA_TORCH = GpuFinding((H100,), "a GPU is here (NVIDIA H100), but torch has no CUDA")


def found(*gpus):
    return GpuFinding(gpus, "")


@pytest.mark.parametrize(
    ("engine", "precision", "hardware", "gpus", "expected", "why"),
    [
        ("auto", "auto", AMX, NO_GPU, ("openvino", "bf16", "erf"), "because no NVIDIA driver is here"),
        ("auto", "auto", AMX, NO_GPU, ("openvino", "bf16", "erf"), "has amx_bf16"),
        ("auto", "auto", ZEN4, NO_GPU, ("openvino", "bf16", "erf"), "has avx512_bf16"),
        ("auto", "auto", CLIENT, NO_GPU, ("openvino", "f32", "erf"), "neither"),
        ("auto", "auto", AMX, NO_CUDA_TORCH, ("openvino", "bf16", "erf"), "H100), but torch has no CUDA"),
        ("auto", "auto", AMX, found(H100), ("cuda", "bf16", "tanh"), "cuda: NVIDIA H100 is here; bf16: the default"),
        ("auto", "auto", PLAIN, found(A100, A100), ("cuda", "bf16", "tanh"), "2 x NVIDIA A100"),
        ("auto", "f32", AMX, found(H100), ("cuda", "f32", "erf"), "as asked"),
        ("auto", "int8", AMX, found(H100), ("openvino", "int8", "erf"), "the engine that computes in int8"),
        ("cuda", "auto", PLAIN, found(H100), ("cuda", "bf16", "tanh"), "cuda: as asked"),
        ("cuda", "fp16", PLAIN, found(A100), ("cuda", "fp16", "tanh"), "fp16: as asked"),
        ("auto", "fp8", PLAIN, found(H100), ("cuda", "fp8", "tanh"), "fp8: as asked"),
        ("openvino", "f32", AMX, found(H100), ("openvino", "f32", "erf"), "as asked"),
        ("auto", "bf16", ZEN4, NO_GPU, ("openvino", "bf16", "erf"), "as asked"),
        ("openvino", "int8", AMX, NO_GPU, ("openvino", "int8", "erf"), "as asked"),
        ("openvino", "int8", ZEN4, NO_GPU, ("openvino", "int8", "erf"), "as asked"),
        ("openvino", "int8", CLIENT, NO_GPU, ("openvino", "int8", "erf"), "as asked"),
        ("torch", "auto", AMX, found(H100), ("torch", "f32", "erf"), "only precision"),
    ],
)
def test_a_choice_is_made_and_explained(engine, precision, hardware, gpus, expected, why):
    choice = choose(engine, precision, hardware, look_for_gpus=lambda: gpus)
    assert (choice.engine, choice.precision, choice.gelu) == expected
    assert why in choice.why
    assert choice.gpu_count == (len(gpus.gpus) if choice.engine == "cuda" else 0)


@pytest.mark.parametrize(
    ("engine", "precision", "gpus", "message"),
    [
        ("onnx", "auto", NO_GPU, "no engine 'onnx': choose auto, openvino, cuda, torch or null"),
        ("auto", "int4", NO_GPU, "no precision 'int4': choose auto, f32, bf16, fp16, int8 or fp8"),
        ("null", "bf16", NO_GPU, "engine null does not compute in bf16: choose precision f32"),
        ("torch", "bf16", NO_GPU, "engine torch does not compute in bf16: choose precision f32"),
        ("openvino", "fp16", NO_GPU, "engine openvino does not compute in fp16: choose precision f32, bf16 or int8"),
        ("cuda", "int8", found(H100), "engine cuda does not compute in int8: choose precision f32, bf16, fp16 or fp8"),
        ("auto", "bf16", NO_GPU, "cannot compute in bf16"),
        ("auto", "int8", NO_GPU, "neither AVX512_VNNI, AVX_VNNI nor AMX_INT8"),
        ("cuda", "auto", NO_GPU, r"cuda cannot run here, because no NVIDIA driver is here \(libcuda.so.1\)"),
        ("cuda", "auto", NO_CUDA_TORCH, "but torch has no CUDA"),
        ("auto", "fp16", NO_GPU, "precision fp16 needs the engine cuda, which cannot run here, because no NVIDIA"),
        ("cuda", "fp8", found(A100), "cannot compute in fp8"),
        ("cuda", "fp8", found(H100, A100), "cannot compute in fp8"),
    ],
)
def test_what_cannot_run_is_refused_in_one_sentence(engine, precision, gpus, message):
    with pytest.raises(ChoiceRefused, match=message) as refusal:
        choose(engine, precision, PLAIN, look_for_gpus=lambda: gpus)
    assert str(refusal.value).endswith(".")
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("engine", ["openvino", "torch", "null"])
def test_a_cpu_engine_never_touches_the_gpu(engine):
    """A broken GPU can hold up whoever asks for it."""

    def look():
        raise AssertionError

    choose(engine, "f32", PLAIN, look_for_gpus=look)
    choose("auto", "int8", AMX, look_for_gpus=look)


@pytest.mark.parametrize("package", ["openvino", "torch"])
def test_a_missing_package_is_named(monkeypatch, package):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == package else object())
    with pytest.raises(ChoiceRefused, match=f"needs the package {package}, which is not installed"):
        choose(package, "f32", PLAIN, look_for_gpus=lambda: NO_GPU)


@pytest.mark.parametrize(
    ("engine", "precision", "gelu", "expected"),
    [
        ("cuda", "bf16", "erf", "erf"),
        ("cuda", "bf16", "auto", "tanh"),
        ("cuda", "f32", "auto", "erf"),
        ("cuda", "f32", "tanh", "tanh"),
        ("openvino", "f32", "erf", "erf"),
    ],
)
def test_the_form_of_gelu_follows_engine_and_precision(engine, precision, gelu, expected):
    choice = choose(engine, precision, AMX, gelu, lambda: found(H100))
    assert choice.gelu == expected
    assert choose_for_elsewhere(engine, precision, gelu).gelu == expected
    assert ("tanh" in choice.why) == (expected == "tanh")


@pytest.mark.parametrize("engine", ["openvino", "torch"])
def test_a_cpu_engine_refuses_the_approximate_gelu(engine):
    with pytest.raises(ChoiceRefused, match="exact GELU only: choose gelu erf or auto"):
        choose(engine, "f32", PLAIN, "tanh", lambda: NO_GPU)
    with pytest.raises(ChoiceRefused, match="no gelu 'relu'"):
        choose(engine, "f32", PLAIN, "relu", lambda: NO_GPU)


def test_for_another_machine_only_names_are_checked():
    choice = choose_for_elsewhere("cuda", "fp8")
    assert (choice.engine, choice.precision, choice.gelu, choice.gpu_count) == ("cuda", "fp8", "tanh", 0)
    for pair in (("auto", "bf16"), ("cuda", "auto")):
        with pytest.raises(ChoiceRefused, match="must be named"):
            choose_for_elsewhere(*pair)
    with pytest.raises(ChoiceRefused, match="engine cuda does not compute in int8"):
        choose_for_elsewhere("cuda", "int8")


class Driver:
    """The few functions of libcuda that are asked; they write through the pointers that they get."""

    def __init__(self, gpus=(), status=0, cuda=13_000):
        self.gpus, self.status, self.cuda = gpus, status, cuda

    def cuInit(self, flags):
        return self.status

    def cuDeviceGetCount(self, count):
        count._obj.value = len(self.gpus)
        return 0

    def cuDeviceGet(self, device, index):
        device._obj.value = 100 + index
        return 0

    def cuDeviceGetName(self, name, size, device):
        name.value = self.gpus[device - 100].name.encode()
        return 0

    def cuDeviceGetAttribute(self, value, attribute, device):
        value._obj.value = self.gpus[device - 100].capability[attribute - 75]
        return 0

    def cuDriverGetVersion(self, version):
        version._obj.value = self.cuda
        return 0


def look(driver, folder=None, cuda="cuda: Optional[str] = '13.0'"):
    def open_library(name):
        assert name == "libcuda.so.1"
        if driver is None:
            raise OSError(name)
        return driver

    if folder is not None:
        (folder / "version.py").write_text(f"__version__ = '2.11.0'\n{cuda}\n")
    return find_gpus(open_library, folder)


@pytest.fixture(autouse=True)
def with_compiler(monkeypatch, tmp_path):
    """As where the Triton language can build its launcher."""
    (tmp_path / "Python.h").touch()
    monkeypatch.setenv("CC", "cc")
    monkeypatch.setattr(sysconfig, "get_paths", lambda: {"include": str(tmp_path)})


def test_gpus_are_found_by_asking_the_driver(tmp_path):
    finding = look(Driver([H100, A100]), tmp_path)
    assert finding.gpus == (H100, A100)
    assert finding.obstacle == ""
    assert finding.capability == (8, 0)


@pytest.mark.parametrize(
    ("driver", "cuda", "obstacle"),
    [
        (None, "cuda = '13.0'", "no NVIDIA driver is here"),
        (Driver(status=100), "cuda = '13.0'", "finds no GPU that this process may use"),
        (Driver(status=803), "cuda = '13.0'", "fails with error 803"),
        (Driver(), "cuda = '13.0'", "finds no GPU that this process may use"),
        (Driver([V100]), "cuda = '13.0'", r"Tesla V100\), but its compute capability is 7.0 and the engine needs 8.0"),
        (Driver([H100]), "cuda: Optional[str] = None", r"NVIDIA H100\), but torch has no CUDA: install a CUDA build"),
        (Driver([H100], cuda=12_040), "cuda = '13.0'", "made for CUDA 12 and torch needs CUDA 13"),
    ],
)
def test_what_the_gpu_engine_lacks_is_said(tmp_path, driver, cuda, obstacle):
    with pytest.raises(ChoiceRefused, match=obstacle):
        choose("cuda", "auto", PLAIN, look_for_gpus=lambda: look(driver, tmp_path, cuda))


@pytest.mark.parametrize("package", ["torch", "triton"])
def test_packages_that_the_gpu_engine_lacks_are_named(monkeypatch, tmp_path, package):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == package else object())
    finding = look(Driver([H100]), None if package == "torch" else tmp_path)
    assert f"the package {package}" in finding.obstacle


def test_a_missing_c_compiler_is_named(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CC", raising=False)
    assert "finds no C compiler: install gcc" in look(Driver([H100]), tmp_path).obstacle
    monkeypatch.setenv("CC", "cc")
    (tmp_path / "Python.h").unlink()
    assert "finds no Python.h" in look(Driver([H100]), tmp_path).obstacle


def test_the_installed_torch_is_read_without_importing_it():
    torch = importlib.import_module("torch")
    obstacle = look(Driver([H100], cuda=99_000)).obstacle
    assert obstacle == "" if torch.version.cuda else "torch has no CUDA" in obstacle


def machine(root, cgroup, files, flags="fpu avx2 amx_bf16"):
    files = files | {"proc/self/cgroup": cgroup, "proc/cpuinfo": f"processor : 0\nflags\t\t: {flags}\n"}
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return read_hardware(root)


@pytest.mark.parametrize(
    ("cgroup", "files", "expected"),
    [
        ("0::/\n", {"sys/fs/cgroup/cpu.max": "max 100000\n"}, 8),
        ("0::/\n", {"sys/fs/cgroup/cpu.max": "200000 100000\n"}, 2),
        ("0::/\n", {"sys/fs/cgroup/cpu.max": "150000 100000\n"}, 2),
        ("0::/\n", {"sys/fs/cgroup/cpu.max": "50000 100000\n"}, 1),
        ("0::/a/b\n", {"sys/fs/cgroup/a/cpu.max": "300000 100000\n", "sys/fs/cgroup/a/b/cpu.max": "max 100000\n"}, 3),
        ("0::/../../elsewhere\n", {"sys/fs/cgroup/cpu.max": "400000 100000\n"}, 4),
        (
            "4:cpu,cpuacct:/box\n",
            {
                "sys/fs/cgroup/cpu,cpuacct/box/cpu.cfs_quota_us": "200000",
                "sys/fs/cgroup/cpu,cpuacct/box/cpu.cfs_period_us": "100000",
            },
            2,
        ),
        (
            "4:cpu,cpuacct:/host/path\n",
            {"sys/fs/cgroup/cpu/cpu.cfs_quota_us": "300000", "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000"},
            3,
        ),
        (
            "4:cpu:/\n",
            {"sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1", "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000"},
            8,
        ),
        ("", {}, 8),
    ],
    ids=[
        "v2 none",
        "v2",
        "v2 fraction",
        "v2 below one",
        "v2 parent",
        "v2 outside",
        "v1",
        "v1 mounted",
        "v1 none",
        "no",
    ],
)
def test_threads_are_what_cgroup_and_affinity_allow(tmp_path, monkeypatch, cgroup, files, expected):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    hardware = machine(tmp_path, cgroup, files)
    assert hardware.threads == expected
    assert hardware.bf16 == "amx_bf16"


def test_affinity_limits_threads(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3})
    assert machine(tmp_path, "0::/\n", {"sys/fs/cgroup/cpu.max": "400000 100000\n"}).threads == 1


def test_a_machine_without_proc_has_no_instruction_sets(tmp_path):
    hardware = read_hardware(tmp_path)
    assert hardware.flags == frozenset()
    assert hardware.bf16 == hardware.int8 == ""
