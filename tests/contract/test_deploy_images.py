"""The images' files: bases, context, settings, and an entrypoint that starts tritonserver as the supervisor does."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path

import pytest
from contract import kube_tools
from polarvec_server.config import load_settings
from polarvec_server.tritonserver import TritonInstall, TritonPlan

DOCKER = kube_tools.ROOT / "deploy" / "docker"
ENTRYPOINT = DOCKER / "polarvec-triton"


def test_the_entrypoint_has_the_flags_of_the_supervisor(tmp_path: Path):
    program = tmp_path / "tritonserver"
    program.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    program.chmod(0o755)
    names = {"PATH": f"{tmp_path}:/usr/bin:/bin", "TRITON_SOCKET_DIRECTORY": "/run/x", "TRITON_METRICS_PORT": "8002"}
    done = subprocess.run([str(ENTRYPOINT), "--more"], env=names, capture_output=True, text=True, check=True)
    plan = TritonPlan(
        TritonInstall(Path("tritonserver"), {}), Path("/prepared/repository"), Path("/run/x"), 8002, 600.0,
        "polarvec-container-",
    )  # fmt: skip
    secret = re.compile(r"(?<=triton-admin=)[0-9a-f]{32}$")
    flags = [secret.sub("SECRET", flag) for flag in done.stdout.splitlines()]
    assert flags == [*(secret.sub("SECRET", flag) for flag in plan.command()[1:]), "--more"]


def test_the_entrypoint_removes_what_a_killed_tritonserver_left(tmp_path: Path):
    program = tmp_path / "tritonserver"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    (tmp_path / "grpc:0").touch()
    region = Path("/dev/shm/polarvec-container-test")
    other = Path("/dev/shm/polarvec-test-of-somebody-else")
    region.touch()
    other.touch()
    try:
        names = {"PATH": f"{tmp_path}:/usr/bin:/bin", "TRITON_SOCKET_DIRECTORY": str(tmp_path)}
        subprocess.run([str(ENTRYPOINT)], env=names, check=True)
        assert not region.exists()
        assert not (tmp_path / "grpc:0").exists()
        assert other.exists()
    finally:
        region.unlink(missing_ok=True)
        other.unlink(missing_ok=True)


@pytest.mark.parametrize("name", ["gateway", "triton", "triton-gpu"])
def test_images_have_no_default_base_and_no_root(name: str):
    lines = (DOCKER / f"Dockerfile.{name}").read_text(encoding="utf-8").splitlines()
    bases = [line for line in lines if line.startswith("ARG ")]
    assert bases == [f"ARG {'PYTHON' if name == 'gateway' else 'TRITON'}_IMAGE"]
    assert all(line.startswith("FROM ${") for line in lines if line.startswith("FROM"))
    users = [line for line in lines if line.startswith("USER")]
    assert users == ["USER 1000:1000"]
    assert any(line.startswith("HEALTHCHECK") for line in lines)
    assert any("-c constraints.txt" in line for line in lines)


@pytest.mark.parametrize("name", ["gateway", "triton", "triton-gpu"])
def test_images_copy_files_that_exist_and_that_the_context_has(name: str):
    ignored = (kube_tools.ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    kept = [line[1:] for line in ignored if line.startswith("!")]
    for line in (DOCKER / f"Dockerfile.{name}").read_text(encoding="utf-8").splitlines():
        if not line.startswith("COPY ") or "--from" in line:
            continue
        *sources, _ = [part for part in shlex.split(line)[1:] if not part.startswith("--")]
        for source in sources:
            assert (kube_tools.ROOT / source).exists(), source
            assert any(source.rstrip("/") == keep or source.startswith(f"{keep}/") for keep in kept), source


@pytest.mark.parametrize("name", ["gateway", "triton", "triton-gpu"])
def test_images_set_only_settings_that_exist(name: str, monkeypatch: pytest.MonkeyPatch):
    content = (DOCKER / f"Dockerfile.{name}").read_text(encoding="utf-8")
    found = re.findall(r"(POLARVEC_[A-Z_]+)=(\S+)", content)
    assert found
    for variable, value in found:
        monkeypatch.setenv(variable, value)
    load_settings()


def test_the_gpu_image_can_build_and_load_kernels():
    """The Triton language compiles C against Python.h, and keeps what it built where it may write."""
    content = (DOCKER / "Dockerfile.triton-gpu").read_text(encoding="utf-8")
    assert re.search(r"apt-get install .*\bgcc\b.*\bpython3-dev\b", content)
    assert "TRITON_CACHE_DIR=/tmp/" in content
    assert "./server[gpu]" in content


# What torch's CUDA wheels for Linux require (Requires-Dist of the wheel's METADATA): exactly one version of the
# Triton language. The CPU build does not require it, so that only the image's build would notice another one.
TRITON_LANGUAGE_OF_TORCH = {"2.13.0": "3.7.1"}


def test_the_versions_of_torch_and_of_the_triton_language_belong_together():
    lines = (kube_tools.ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    versions = dict(line.split("==", 1) for line in lines if "==" in line)
    assert TRITON_LANGUAGE_OF_TORCH.get(versions["torch"]) == versions["triton"]


def test_both_triton_images_are_alike_but_for_the_gpu():
    cpu, gpu = (
        (DOCKER / f"Dockerfile.{name}").read_text(encoding="utf-8").splitlines() for name in ("triton", "triton-gpu")
    )
    for line in cpu:
        if not line.startswith(("#", "    -c ")) and "POLARVEC_TRITON_TARGET" not in line:
            assert line in gpu, line
