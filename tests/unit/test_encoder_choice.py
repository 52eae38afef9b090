"""What "auto" becomes on which machine, and what is refused."""

import os

import pytest
from polarvec_encoder.choice import choose
from polarvec_encoder.errors import ChoiceRefused
from polarvec_encoder.hardware import Hardware, read_hardware

AMX = Hardware(2, frozenset({"avx512f", "amx_bf16", "avx512_bf16"}))
ZEN4 = Hardware(2, frozenset({"avx512f", "avx512_bf16"}))
PLAIN = Hardware(2, frozenset({"avx2"}))


@pytest.mark.parametrize(
    ("engine", "precision", "hardware", "expected", "why"),
    [
        ("auto", "auto", AMX, ("openvino", "bf16"), "has amx_bf16"),
        ("auto", "auto", ZEN4, ("openvino", "bf16"), "has avx512_bf16"),
        ("auto", "auto", PLAIN, ("openvino", "f32"), "neither"),
        ("openvino", "f32", AMX, ("openvino", "f32"), "as asked"),
        ("auto", "bf16", ZEN4, ("openvino", "bf16"), "as asked"),
        ("torch", "auto", AMX, ("torch", "f32"), "only precision"),
    ],
)
def test_a_choice_is_made_and_explained(engine, precision, hardware, expected, why):
    choice = choose(engine, precision, hardware)
    assert (choice.engine, choice.precision) == expected
    assert why in choice.why


@pytest.mark.parametrize(
    ("engine", "precision", "message"),
    [
        ("cuda", "auto", "engine cuda is not built yet"),
        ("auto", "int8", "precision int8 is not built yet"),
        ("onnx", "auto", "no engine 'onnx'"),
        ("auto", "fp16", "no precision 'fp16'"),
        ("torch", "bf16", "f32 only"),
        ("auto", "bf16", "cannot compute in bf16"),
    ],
)
def test_what_cannot_run_is_refused_in_one_sentence(engine, precision, message):
    with pytest.raises(ChoiceRefused, match=message) as refusal:
        choose(engine, precision, PLAIN)
    assert str(refusal.value).endswith(".")
    assert "\n" not in str(refusal.value)


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
    assert hardware.bf16 == ""
