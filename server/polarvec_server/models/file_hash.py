"""Hashes of files and of plain values; the hash of a large file is kept, so that a start does not read it again."""

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path


def content_hash(file: Path, cache_dir: Path) -> str:
    """Returns the SHA-256 of a file's bytes in hexadecimal.

    The answer is kept under `cache_dir` by path, size and time of change in nanoseconds; a cache that cannot be
    written or read costs time only.

    Raises:
        OSError: The file cannot be read.
    """
    status = file.stat()
    key = hash_values({"path": str(file.resolve()), "size": status.st_size, "mtime_ns": status.st_mtime_ns})
    kept = cache_dir / "hashes" / key
    try:
        digest = kept.read_text(encoding="ascii").strip()
        if len(digest) == 64:
            return digest
    except (OSError, UnicodeDecodeError):
        pass
    with file.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    _keep(kept, digest)
    return digest


def hash_values(values: Mapping[str, object]) -> str:
    """Returns the SHA-256 of plain values in hexadecimal; the order of keys does not matter."""
    return hashlib.sha256(json.dumps(values, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


def _keep(kept: Path, digest: str) -> None:
    """Writes beside and renames, so that another process never reads half a hash."""
    try:
        kept.parent.mkdir(parents=True, exist_ok=True)
        beside = kept.with_name(f"{kept.name}.{os.getpid()}")
        beside.write_text(digest, encoding="ascii")
        beside.replace(kept)
    except OSError:
        pass
