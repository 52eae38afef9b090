"""How many cores a server may use, and who gets them."""

import os

import pytest
from polarvec_encoder.hardware import read_hardware
from polarvec_server.config import load_settings
from polarvec_server.cores import available_cores, share_cores

V2, V1 = "sys/fs/cgroup", "sys/fs/cgroup/cpu,cpuacct"


@pytest.mark.parametrize(
    ("cgroup", "files", "expected"),
    [
        ("", {}, 8),
        ("0::/\n", {f"{V2}/cpu.max": "max 100000\n"}, 8),
        ("0::/\n", {f"{V2}/cpu.max": "300000 100000\n"}, 3),
        ("0::/\n", {f"{V2}/cpu.max": "250000 100000\n"}, 2),
        ("0::/\n", {f"{V2}/cpu.max": "50000 100000\n"}, 1),
        ("0::/a/b\n", {f"{V2}/a/cpu.max": "300000 100000\n", f"{V2}/a/b/cpu.max": "max 100000\n"}, 3),
        ("0::/../../elsewhere\n", {f"{V2}/cpu.max": "400000 100000\n"}, 4),
        ("4:cpu,cpuacct:/box\n", {f"{V1}/box/cpu.cfs_quota_us": "200000", f"{V1}/box/cpu.cfs_period_us": "100000"}, 2),
        (
            "4:cpu,cpuacct:/host/path\n",
            {"sys/fs/cgroup/cpu/cpu.cfs_quota_us": "300000", "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000"},
            3,
        ),
        ("4:cpu:/\n", {"sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1"}, 8),
        ("3:memory:/\n", {f"{V2}/cpu.max": "100000 100000\n"}, 8),
    ],
    ids=[
        "no cgroup",
        "no limit",
        "v2",
        "fraction",
        "below one",
        "parent",
        "outside",
        "v1",
        "v1 mounted",
        "v1 none",
        "other controller",
    ],
)
def test_cores_are_what_cgroup_and_affinity_allow(tmp_path, monkeypatch, cgroup, files, expected):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    for name, content in (files | {"proc/self/cgroup": cgroup}).items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    assert available_cores(tmp_path) == expected
    # The encoder rounds up, because a thread may use part of a core.
    assert read_hardware(tmp_path).threads in (expected, expected + 1)


def test_affinity_limits_cores(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3})
    assert available_cores(tmp_path) == 1


@pytest.mark.parametrize(
    ("engine", "cores", "settings", "expected"),
    [
        ("cpu", 1, {}, (1, 1)),
        ("cpu", 2, {}, (1, 2)),
        ("cpu", 3, {}, (1, 2)),
        ("cpu", 4, {}, (1, 3)),
        ("cpu", 16, {}, (2, 14)),
        ("cpu", 64, {}, (8, 56)),
        ("cpu", 4, {"workers": 2}, (2, 2)),
        ("cpu", 4, {"workers": 9}, (9, 1)),
        ("cpu", 2, {"workers": 2}, (2, 2)),
        ("cpu", 4, {"engine_threads": 2}, (2, 2)),
        ("cpu", 4, {"engine_threads": 6}, (1, 6)),
        ("cpu", 64, {"engine_threads": 8}, (8, 8)),
        ("cpu", 4, {"engine_threads": 4, "workers": 3}, (3, 4)),
        ("gpu", 1, {}, (1, 0)),
        ("gpu", 4, {}, (3, 0)),
        ("gpu", 16, {}, (8, 0)),
        ("gpu", 16, {"workers": 12, "engine_threads": 2}, (12, 0)),
        ("elsewhere", 4, {}, (4, 0)),
        ("elsewhere", 32, {}, (8, 0)),
    ],
)
def test_engine_and_workers_share_the_cores(engine, cores, settings, expected):
    shares = share_cores(load_settings(**settings), cores, engine)
    assert (shares.workers, shares.engine_threads) == expected
