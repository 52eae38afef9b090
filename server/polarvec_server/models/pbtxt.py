"""Edits our own config.pbtxt as text: just enough of protobuf's text format, without Triton's generated code."""

import re
from collections.abc import Mapping, Sequence

from polarvec_server.errors import ConfigError


def with_scalars(text: str, values: Mapping[str, object]) -> str:
    """Returns the text with every top-level or nested `key: value` line of these keys set.

    `name` is set at the top level only, where it stands at the start of a line.

    Raises:
        ConfigError: A key does not occur.
    """
    for key, value in values.items():
        start = r"(?m)^" if key == "name" else r"(?m)(?<!#)(?<![\w#])"
        text, count = re.subn(rf"{start}{key}:\s*(\"[^\"]*\"|[\w.+-]+)", lambda _, k=key, v=value: f"{k}: {v}", text)  # type: ignore[misc]
        if count == 0:
            raise ConfigError(f"The encoder's config.pbtxt has no {key}; install polarvec-server again.")
    return text


def with_output_dimensions(text: str, name: str, dimensions: int) -> str:
    """Returns the text with the last number of `dims` of one tensor set.

    Raises:
        ConfigError: There is no such tensor.
    """
    pattern = rf"(name:\s*\"{name}\"[^}}]*?dims:\s*\[[^\]]*?)(-?\d+)(\s*\])"
    text, count = re.subn(pattern, lambda match: f"{match[1]}{dimensions}{match[3]}", text, count=1)
    if count == 0:
        raise ConfigError(f"The encoder's config.pbtxt has no tensor {name}; install polarvec-server again.")
    return text


def without_blocks(text: str, names: Sequence[str]) -> str:
    """Returns the text without the top-level blocks `name { ... }` or `name [ ... ]` of these names."""
    for name in names:
        while match := re.search(rf"(?m)^{name}\s*:?\s*([{{\[])", text):
            end = _closing(text, match.end() - 1)
            text = text[: match.start()] + text[end + 1 :].lstrip("\n")
    return text


def parameter(key: str, value: str) -> str:
    """Returns one line of the map `parameters`."""
    return f'parameters {{ key: "{_escaped(key)}" value: {{ string_value: "{_escaped(value)}" }} }}'


def _closing(text: str, start: int) -> int:
    """Returns the place of the bracket that closes the one at `start`, past strings and comments."""
    depth = 0
    for match in re.compile(r"\"(?:\\.|[^\"\\])*\"|#[^\n]*|[{}\[\]]").finditer(text, start):
        depth += {"{": 1, "[": 1, "}": -1, "]": -1}.get(match[0], 0)
        if depth == 0:
            return match.start()
    raise ConfigError("The encoder's config.pbtxt has an open bracket; install polarvec-server again.")


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n").replace("\r", r"\r")
