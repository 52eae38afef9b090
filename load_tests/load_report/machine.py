"""What a number of a report depends on beside the scenario: the machine, the code, the server's settings."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

import psutil

_ROOT = Path(__file__).resolve().parents[2]
# A report is handed around: no keys, no names of hosts, no paths.
_PRIVATE = ("KEY", "TLS", "DIR", "FILE", "HOST", "PORT", "PATH", "URL", "TARGET", "CERT", "TOKEN_")


def machine() -> dict[str, Any]:
    """Processor, cores that we may use, memory, versions."""
    return {
        "cpu": _cpu_name(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
    }


def git_commit() -> str:
    """The commit that is checked out, with + if files differ from it; empty where git does not know."""
    try:
        commit, changes = (
            subprocess.run(["git", *words], cwd=_ROOT, capture_output=True, text=True, check=True).stdout.strip()
            for words in (["rev-parse", "HEAD"], ["status", "--porcelain", "--untracked-files=no"])
        )
    except (OSError, subprocess.CalledProcessError):
        return ""
    return commit + ("+" if changes else "")


def server_settings(own: str) -> dict[str, str]:
    """The settings that our own server was started with.

    Args:
        own: A JSON object of them, from run.py; empty if the server is not ours, so that nobody knows.
    """
    if not own:
        return {}
    found = {name[9:].lower(): value for name, value in os.environ.items() if name.startswith("POLARVEC_")}
    found |= json.loads(own)
    return {name: value for name, value in sorted(found.items()) if not any(word in name.upper() for word in _PRIVATE)}


def _cpu_name() -> str:
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor()
