"""Part `environment`: which machine this is, its clocks, and its two ceilings (a large copy, a large product)."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from typing import Any

import torch
from measuring import clocks, nvidia_smi, say, seconds_of
from scale import Scale

_PACKAGES = ("torch", "triton", "transformers", "sentence-transformers", "numpy", "tokenizers", "safetensors")


def run(scale: Scale, earlier: dict[str, Any]) -> dict[str, Any]:
    """Describe and measure."""
    versions = {name: _version(name) for name in _PACKAGES}
    found: dict[str, Any] = {
        "python": platform.python_version(),
        "kernel": platform.release(),
        "cores": os.cpu_count(),
        "packages": versions,
        "nvidia_smi": nvidia_smi("--query-gpu=name,driver_version,memory.total,power.limit", "--format=csv,noheader"),
        "clocks_idle": clocks(),
    }
    if not scale.dry:
        properties = torch.cuda.get_device_properties(0)
        found["device"] = properties.name
        found["multiprocessors"] = properties.multi_processor_count
        found["l2_mb"] = properties.L2_cache_size / 1e6
    size = 256 if scale.dry else 8192
    dtype = torch.float32 if scale.dry else torch.bfloat16
    left, right = (torch.randn(size, size, device=scale.device, dtype=dtype) for _ in range(2))
    seconds = seconds_of(lambda: left @ right, scale.device, scale.short_s)
    found["square_product_tflops"] = 2 * size**3 / seconds / 1e12
    source = torch.randn(1 << (20 if scale.dry else 30), device=scale.device, dtype=torch.bfloat16)
    target = torch.empty_like(source)
    found["copy_gb_s"] = 2 * source.nbytes / seconds_of(lambda: target.copy_(source), scale.device, scale.short_s) / 1e9
    found["clocks_after"] = clocks()
    for name, value in found.items():
        say(f"  {name}: {value}")
    return found


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"
