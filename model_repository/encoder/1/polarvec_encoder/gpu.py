"""Which NVIDIA GPUs the engine `cuda` could use here, and what it lacks: found out without importing torch.

The driver's own library answers, so CUDA_VISIBLE_DEVICES and what a container was given count. Importing torch would
cost a second and some 300 MB at every start, also where there is no GPU.
"""

from __future__ import annotations

import ctypes
import importlib.util
import os
import re
import shutil
import sysconfig
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# The driver's API, https://docs.nvidia.com/cuda/cuda-driver-api: attributes of a device, and a status.
_MAJOR, _MINOR = 75, 76
_NO_DEVICE = 100
# Compute capability from which each format has tensor cores: bfloat16 begins with Ampere, fp8 with Ada.
LEAST_CAPABILITY = {"f32": (8, 0), "bf16": (8, 0), "fp16": (8, 0), "fp8": (8, 9)}
_OLDEST = min(LEAST_CAPABILITY.values())


@dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU that this process may use."""

    name: str
    capability: tuple[int, int]
    """Compute capability; (9, 0) is Hopper."""


@dataclass(frozen=True, slots=True)
class GpuFinding:
    """What was looked for and found."""

    gpus: tuple[Gpu, ...]
    obstacle: str
    """Why the engine `cuda` cannot use them, as a clause that follows "because"; empty where it can."""

    @property
    def capability(self) -> tuple[int, int]:
        """The lowest compute capability of all."""
        return min(gpu.capability for gpu in self.gpus)

    def __str__(self) -> str:
        names = sorted({gpu.name for gpu in self.gpus})
        return f"{len(self.gpus)} x {', '.join(names)}" if len(self.gpus) > 1 else ", ".join(names)


def find_gpus(open_library: Callable[[str], Any] = ctypes.CDLL, torch_folder: Path | None = None) -> GpuFinding:
    """Ask the driver for its GPUs, and the installed packages for what the engine needs.

    Args:
        open_library: Opens a shared library.
        torch_folder: Where torch lies; None looks it up.
    """
    try:
        driver = open_library("libcuda.so.1")
    except OSError:
        return GpuFinding((), "no NVIDIA driver is here (libcuda.so.1)")
    status = driver.cuInit(0)
    if status:
        known = "it finds no GPU that this process may use" if status == _NO_DEVICE else f"it fails with error {status}"
        return GpuFinding((), f"an NVIDIA driver is here, but {known}")
    gpus = tuple(_gpu(driver, index) for index in range(_integer(driver.cuDeviceGetCount)))
    if not gpus:
        return GpuFinding((), "an NVIDIA driver is here, but it finds no GPU that this process may use")
    finding = GpuFinding(gpus, "")
    obstacle = _too_old(finding.capability) or _packages_lack(torch_folder, _integer(driver.cuDriverGetVersion))
    return GpuFinding(gpus, f"a GPU is here ({finding}), but {obstacle}" if obstacle else "")


def _gpu(driver: Any, index: int) -> Gpu:
    device = _integer(driver.cuDeviceGet, index)
    name = ctypes.create_string_buffer(100)
    driver.cuDeviceGetName(name, len(name), device)
    capability = (
        _integer(driver.cuDeviceGetAttribute, _MAJOR, device),
        _integer(driver.cuDeviceGetAttribute, _MINOR, device),
    )
    return Gpu(name.value.decode(errors="replace"), capability)


def _integer(function: Callable[..., int], *arguments: int) -> int:
    """Call a function of the driver that writes one integer; 0 where it fails."""
    value = ctypes.c_int(0)
    return 0 if function(ctypes.byref(value), *arguments) else value.value


def _too_old(capability: tuple[int, int]) -> str:
    if capability >= _OLDEST:
        return ""
    return f"its compute capability is {capability[0]}.{capability[1]} and the engine needs {_OLDEST[0]}.{_OLDEST[1]}"


def _packages_lack(torch_folder: Path | None, driver_cuda: int) -> str:
    """Say what torch or the Triton language lack; `driver_cuda` is the driver's CUDA version, 13000 for 13.0."""
    folder = torch_folder or _folder_of("torch")
    if folder is None:
        return "the package torch is not installed"
    try:
        stated = re.search(r"(?m)^cuda\b[^=\n]*=\s*'(\d+)", (folder / "version.py").read_text(encoding="utf-8"))
    except OSError:
        stated = None
    if stated is None:
        return "torch has no CUDA: install a CUDA build of torch"
    if driver_cuda // 1000 < int(stated[1]):
        return f"its driver is made for CUDA {driver_cuda // 1000} and torch needs CUDA {stated[1]}: update the driver"
    if importlib.util.find_spec("triton") is None:
        return "the package triton (the Triton language) is not installed"
    return _compiler_lacks()


def _compiler_lacks() -> str:
    """Say what the Triton language lacks to build the few lines of C with which it starts kernels."""
    if not (os.environ.get("CC") or shutil.which("gcc") or shutil.which("clang")):
        return "the package triton finds no C compiler: install gcc"
    if not (Path(sysconfig.get_paths()["include"]) / "Python.h").is_file():
        return "the package triton finds no Python.h: install the headers of this Python (python3-dev)"
    return ""


def _folder_of(package: str) -> Path | None:
    spec = importlib.util.find_spec(package)
    places = spec.submodule_search_locations if spec else None
    return Path(places[0]) if places else None
