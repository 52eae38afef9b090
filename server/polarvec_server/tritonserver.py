"""The tritonserver process: which binary, with which command line, and what it leaves behind."""

from __future__ import annotations

import contextlib
import ctypes
import importlib.util
import os
import secrets
import shutil
import socket
import sys
import sysconfig
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from polarvec_server.errors import ConfigError

_SHARED_MEMORY = Path("/dev/shm")  # noqa: S108
_OLDEST_GLIBC = (2, 35)
EXIT_TIMEOUT_S = 5
# Which GPUs there are, and with what and where the Triton language builds its kernels.
_GPU_VARIABLES = ("CUDA_VISIBLE_DEVICES", "NVIDIA_VISIBLE_DEVICES", "CC", "TRITON_CACHE_DIR", "TRITON_LIBCUDA_PATH")


@dataclass(frozen=True, slots=True)
class TritonInstall:
    """Where a tritonserver lies, and the environment and flags that it needs to run from there."""

    binary: Path
    environment: Mapping[str, str]
    flags: tuple[str, ...] = ()


def find_triton(binary: str, scratch: Path) -> TritonInstall:
    """Finds tritonserver: the one named, the one on PATH, or the one in the package nvidia-pytriton.

    Args:
        binary: Path of a binary; empty to look for one.
        scratch: A directory of our own for the backend directory that the package's binary needs.

    Raises:
        ConfigError: There is none, or this machine cannot run it; the message says what to install.
    """
    named = binary or shutil.which("tritonserver")
    if named:
        if not os.access(named, os.X_OK):
            raise ConfigError(f"POLARVEC_TRITON_BINARY is {named}, which is no program that can be run.")
        return TritonInstall(Path(named), {})
    spec = importlib.util.find_spec("pytriton")
    if spec is None or not spec.submodule_search_locations:
        raise ConfigError(
            "There is no tritonserver on PATH; install one, or the package nvidia-pytriton "
            "(pip install 'polarvec-server[cpu]')."
        )
    return _package_triton(Path(spec.submodule_search_locations[0]), scratch)


def _package_triton(package: Path, scratch: Path) -> TritonInstall:
    """Prepares the binary that nvidia-pytriton ships: Triton 2.51, for development and tests only."""
    libpython_directory = _check_machine()
    root = package / "tritonserver"
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    stub = root / "python_backend_stubs" / version / "triton_python_backend_stub"
    if not stub.exists():
        raise ConfigError(f"The package nvidia-pytriton has no backend for Python {version}; use Python 3.11 or 3.12.")
    backend = scratch / "backends" / "python"
    shutil.copytree(root / "backends" / "python", backend, dirs_exist_ok=True)
    # The stub must lie beside the backend and be executable; the package leaves it 0100.
    shutil.copy(stub, backend / stub.name)
    (backend / stub.name).chmod(0o755)
    libraries = [str(package.parent / "nvidia_pytriton.libs"), *([libpython_directory] if libpython_directory else [])]
    # The stub ignores PYTHONPATH; it takes the packages of the environment whose python3 comes first on PATH.
    programs = f"{Path(sys.executable).parent}:{os.environ.get('PATH', os.defpath)}"
    # What is set already comes last: on many hosts it is the only way to the GPU's driver.
    libraries += filter(None, [os.environ.get("LD_LIBRARY_PATH")])
    environment = {"LD_LIBRARY_PATH": ":".join(libraries), "PATH": programs}
    return TritonInstall(root / "bin" / "tritonserver", environment, (f"--backend-directory={scratch / 'backends'}",))


def _check_machine() -> str:
    """Returns the directory of libpython for LD_LIBRARY_PATH; empty if the loader finds it by itself."""
    libc = os.confstr("CS_GNU_LIBC_VERSION") if "CS_GNU_LIBC_VERSION" in os.confstr_names else None
    if not libc or tuple(int(part) for part in libc.split()[1].split(".")[:2]) < _OLDEST_GLIBC:
        raise ConfigError(
            f"nvidia-pytriton's tritonserver needs glibc 2.35 or newer, here is {libc or 'another C library'}; "
            "use Debian 12, Ubuntu 22.04 or newer, or put a tritonserver on PATH."
        )
    library = f"libpython{sys.version_info.major}.{sys.version_info.minor}.so.1.0"
    directory = sysconfig.get_config_var("LIBDIR") or ""
    if (Path(directory) / library).exists():
        return str(directory)
    try:
        ctypes.CDLL(library)
    except OSError:
        raise ConfigError(
            f"Triton's Python backend needs {library}, which this Python lacks; on Debian and Ubuntu install "
            f"{library.split('.so')[0]}, with pyenv build Python with PYTHON_CONFIGURE_OPTS=--enable-shared."
        ) from None
    return ""


@dataclass(frozen=True, slots=True)
class TritonPlan:
    """How one tritonserver is to run: everything that its command line and environment follow from."""

    install: TritonInstall
    repository: Path
    socket_directory: Path
    metrics_port: int
    load_timeout_s: float
    shared_memory_prefix: str

    @property
    def target(self) -> str:
        """The gRPC address that clients use; Triton joins address and port with a colon, also for a socket."""
        return f"unix:{self.socket_directory}/grpc:0"

    def command(self) -> list[str]:
        """Returns the hardened command line; docs/operations.md says what each flag is for."""
        return [
            str(self.install.binary),
            f"--model-repository={self.repository}",
            "--model-control-mode=none",
            "--strict-readiness=true",
            "--exit-on-error=true",
            "--disable-auto-complete-config",
            "--allow-http=false",
            "--allow-sagemaker=false",
            "--allow-vertex-ai=false",
            f"--grpc-address=unix:{self.socket_directory}/grpc",
            "--grpc-port=0",
            # Nothing of ours uses these. What keeps others from the socket is its private directory.
            "--grpc-restricted-protocol=model-repository,shared-memory,statistics,trace,logging:"
            f"triton-admin={secrets.token_hex(16)}",
            "--grpc-infer-allocation-pool-size=64",
            "--allow-metrics=true",
            "--metrics-address=127.0.0.1",
            f"--metrics-port={self.metrics_port}",
            "--metrics-config=summary_latencies=true",
            f"--exit-timeout-secs={EXIT_TIMEOUT_S}",
            "--log-format=ISO8601",
            "--log-verbose=0",
            "--backend-config=python,shm-default-byte-size=16777216",
            f"--backend-config=python,stub-timeout-seconds={int(self.load_timeout_s)}",
            f"--backend-config=python,shm-region-prefix-name={self.shared_memory_prefix}",
            *self.install.flags,
        ]

    def environment(self) -> dict[str, str]:
        """Returns the whole environment: little of ours, so that settings and secrets stay here."""
        kept = ("PATH", "HOME", "USER", "TMPDIR", "LD_LIBRARY_PATH", *_GPU_VARIABLES)
        inherited = {name: os.environ[name] for name in kept if name in os.environ}
        # Without UTF-8 mode any non-ASCII output kills the stub; numpy's arrays are too small here for threads.
        fixed = {"PYTHONUTF8": "1", "OPENBLAS_NUM_THREADS": "1"}
        return {**inherited, **fixed, **self.install.environment}

    def clean_up(self) -> None:
        """Removes what a killed tritonserver leaves: its socket and its shared-memory regions."""
        with contextlib.suppress(FileNotFoundError):
            (self.socket_directory / "grpc:0").unlink()
        for region in _SHARED_MEMORY.glob(f"{self.shared_memory_prefix}*"):
            with contextlib.suppress(OSError):
                region.unlink()


def free_port() -> int:
    """Returns a TCP port of loopback that is free right now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
