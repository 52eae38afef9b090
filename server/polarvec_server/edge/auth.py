"""API keys: read from a file, compared without telling anything by time, never logged."""

from __future__ import annotations

import hashlib
import hmac
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import structlog

from polarvec_server.errors import ConfigError, PermissionDenied, Unauthenticated

_log = structlog.get_logger(__name__)
_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_DIGEST = re.compile(r"sha256:([0-9a-f]{64})")
_SHORTEST_KEY = 16


@dataclass(frozen=True, slots=True)
class ApiKey:
    """Who calls: the key's name for logs, and what it may use."""

    name: str = ""
    # Empty means every model.
    models: frozenset[str] = frozenset()

    def may_use(self, model_id: str) -> bool:
        """Whether the key may use a model."""
        return not self.models or model_id in self.models


ANYONE = ApiKey()


class Authenticator:
    """Knows the keys of one server; without a file it lets everybody in."""

    def __init__(self, keys_file: str) -> None:
        """Reads the file. Raises ConfigError if it cannot be used."""
        self._file = Path(keys_file) if keys_file else None
        self._keys: Mapping[bytes, ApiKey] = {}
        self._version: tuple[int, int] | None = None
        if self._file:
            self._version = _version(self._file)
            self._keys = read_keys(self._file)

    def check(self, authorization: str | None) -> ApiKey:
        """Returns whose key a call brings in `authorization: Bearer KEY`. Raises Unauthenticated."""
        if self._file is None:
            return ANYONE
        scheme, _, secret = (authorization or "").partition(" ")
        digest = hashlib.sha256(secret.strip().encode("utf-8", "replace")).digest()
        found = None
        # All of them, always: the time must not tell how many were tried.
        for known, key in self._keys.items():
            if hmac.compare_digest(known, digest):
                found = key
        if found is None or scheme.lower() != "bearer":
            raise Unauthenticated
        return found

    def refresh(self) -> None:
        """Reads the file again if it has changed; one that cannot be used leaves the keys as they are."""
        if self._file is None:
            return
        version = _version(self._file)
        if version in (None, self._version):
            return
        self._version = version
        try:
            self._keys = read_keys(self._file)
        except ConfigError as error:
            _log.error("the API keys stay as they are", cause=str(error))
        else:
            _log.info("read the API keys again", keys=len(self._keys))


def check_model(key: ApiKey, model_id: str) -> None:
    """Raises PermissionDenied if the key is limited to other models."""
    if not key.may_use(model_id):
        raise PermissionDenied


def read_keys(file: Path) -> dict[bytes, ApiKey]:
    """Reads keys, one a line: a name, the key or `sha256:` and its digest in hex, and models separated by commas.

    Returns:
        The keys by their SHA-256 digest.

    Raises:
        ConfigError: The file cannot be read, has no key, or a line is wrong; no key is ever in the message.
    """
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"POLARVEC_API_KEYS_FILE: {file} cannot be read ({type(error).__name__}).") from error
    keys: dict[bytes, ApiKey] = {}
    for number, line in enumerate(lines, 1):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        problem = _problem(words)
        if problem:
            raise ConfigError(f"POLARVEC_API_KEYS_FILE: line {number} of {file} {problem}.")
        written = _DIGEST.fullmatch(words[1])
        digest = bytes.fromhex(written[1]) if written else hashlib.sha256(words[1].encode()).digest()
        if digest in keys:
            raise ConfigError(
                f"POLARVEC_API_KEYS_FILE: line {number} of {file} repeats the key of {keys[digest].name}."
            )
        models = frozenset(words[2].split(",")) if len(words) == 3 else frozenset[str]()
        keys[digest] = ApiKey(words[0], models)
    if not keys:
        raise ConfigError(f"POLARVEC_API_KEYS_FILE: {file} holds no key; write one `NAME KEY` a line.")
    return keys


def _problem(words: list[str]) -> str:
    if len(words) not in (2, 3):
        return "is not `NAME KEY [MODELS]`, separated by blanks"
    if not _NAME.fullmatch(words[0]):
        return "begins with no name of letters, digits and `_ . -`"
    if words[1].startswith("sha256:") and not _DIGEST.fullmatch(words[1]):
        return "has a digest that is not 64 lower-case hexadecimal digits"
    if len(words[1]) < _SHORTEST_KEY:
        return f"has a key of less than {_SHORTEST_KEY} characters"
    if len(words) == 3 and not all(words[2].split(",")):
        return "has an empty model name between its commas"
    return ""


def _version(file: Path) -> tuple[int, int] | None:
    """Returns what changes when a file does; None while there is none."""
    try:
        status = os.stat(file)
    except OSError:
        return None
    return status.st_mtime_ns, status.st_ino
