"""JSON out of a model folder; whatever is wrong with a file becomes one sentence that names it."""

import json
from collections.abc import Mapping
from pathlib import Path

from polarvec_server.errors import PolarvecServerError


class ModelFolderError(PolarvecServerError):
    """A model folder cannot be used.

    Attributes:
        path: The folder.
        problem: What is wrong with it, and what to do: a sentence without its first capital.
    """

    def __init__(self, path: Path, problem: str) -> None:
        """Says which folder and what is wrong with it."""
        super().__init__(f"The model folder {path} cannot be used: {problem}")
        self.path = path
        self.problem = problem


def read_value(folder: Path, name: str, purpose: str) -> object:
    """Reads one JSON file of a folder.

    Args:
        folder: The model folder.
        name: The file's path in it.
        purpose: What the file is for, for the message when it is missing: "it says how ...".

    Raises:
        ModelFolderError: The file is missing, unreadable or no JSON.
    """
    try:
        return json.loads((folder / name).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ModelFolderError(folder, f"{name} is missing; {purpose}.") from None
    except OSError as error:
        raise ModelFolderError(folder, f"{name} cannot be read ({error.strerror}).") from error
    except UnicodeDecodeError:
        raise ModelFolderError(folder, f"{name} is not UTF-8 text; fetch the model again.") from None
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise ModelFolderError(folder, f"{name} is not valid JSON ({error.msg}, {where}); fetch it again.") from None
    except RecursionError:
        raise ModelFolderError(folder, f"{name} is nested too deeply to be a model's configuration.") from None


def read_object(folder: Path, name: str, purpose: str) -> Mapping[str, object]:
    """Reads one JSON file whose content must be an object.

    Raises:
        ModelFolderError: As for `read_value`, or the content is something else.
    """
    value = read_value(folder, name, purpose)
    if not isinstance(value, dict):
        raise ModelFolderError(folder, f"{name} holds {_kind(value)} where an object is wanted.")
    return value


def whole_number(folder: Path, name: str, values: Mapping[str, object], key: str) -> int | None:
    """Returns a positive whole number of a configuration, or None where it is absent or null.

    Raises:
        ModelFolderError: The value is something else.
    """
    value = values.get(key)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ModelFolderError(folder, f"{name} has {key}: {value!r} where a positive whole number is wanted.")
    return value


def _kind(value: object) -> str:
    return {list: "a list", str: "a string", type(None): "null"}.get(type(value), "a bare value")
