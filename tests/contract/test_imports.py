"""The import arrows of docs/architecture.md, held against the code."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SERVER = ROOT / "server" / "polarvec_server"
FILES = sorted(SERVER.rglob("*.py"))
STAGES = {file.stem for file in (SERVER / "pipeline").glob("*.py")} - {"__init__", "values", "embedder"}


def imported(file: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def ours(file: Path) -> set[str]:
    """Modules of the server that a file imports, as paths without the package's name."""
    prefix = "polarvec_server."
    return {name.removeprefix(prefix) for name in imported(file) if name.startswith(prefix)}


def reaches(file: Path, *folders: str) -> set[str]:
    return {name for name in ours(file) if name.split(".")[0] in folders}


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(SERVER)))
def test_imports_go_one_way(file):
    place = file.relative_to(SERVER)
    if place.parts[0] == "pipeline" and place.stem in STAGES:
        others = {f"pipeline.{stage}" for stage in STAGES} - {f"pipeline.{place.stem}"}
        assert not {name for name in ours(file) if any(name == o or name.startswith(f"{o}.") for o in others)}
        assert not reaches(file, "edge", "models", "gateway", "supervisor", "cli")
    elif place.parts[0] == "pipeline":
        assert not reaches(file, "edge", "models", "gateway", "supervisor", "cli")
    elif place.parts[0] == "edge":
        assert not reaches(file, "models", "gateway", "supervisor", "cli")
        assert "pipeline.triton" not in ours(file)
    elif place.parts[0] == "models":
        assert not reaches(file, "pipeline", "edge", "gateway", "supervisor", "cli")
    elif place.name in ("config.py", "errors.py"):
        assert ours(file) <= {"errors", "errors.ConfigError"}


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(SERVER)))
def test_packages_stay_where_they_belong(file):
    place = str(file.relative_to(SERVER))
    roots = {name.split(".")[0] for name in imported(file)}
    assert ("tritonclient" in roots) == (place == "pipeline/triton.py")
    # The probes are clients, and the composition root opens the port.
    doors = place.startswith(("edge/", "tei_proto/"))
    knows_grpc = doors or place in ("errors.py", "gateway.py", "probes.py", "pipeline/triton.py")
    assert knows_grpc or not roots & {"grpc", "google", "polarvec_proto"}
    assert not roots & {"polarvec", "torch", "transformers", "openvino"}
    assert doors or not reaches(file, "tei_proto")


def test_server_and_client_never_import_each_other():
    for file in (ROOT / "client" / "polarvec").rglob("*.py"):
        assert not {name for name in imported(file) if name.split(".")[0] == "polarvec_server"}, file


def test_the_encoder_stands_alone():
    for file in (ROOT / "model_repository").rglob("*.py"):
        assert not {
            name for name in imported(file) if name.split(".")[0] in ("polarvec_server", "polarvec", "polarvec_proto")
        }, file


def test_only_the_settings_read_our_environment():
    """Children's environments are made from os.environ, and PROMETHEUS_MULTIPROC_DIR is the library's own switch."""
    readers = [
        file.relative_to(SERVER).as_posix() for file in FILES if "os.environ" in file.read_text(encoding="utf-8")
    ]
    assert set(readers) <= {
        "config.py",
        "run_directory.py",
        "worker_pool.py",
        "tritonserver.py",
        "models/inspection.py",
        "models/hub.py",
    }
