"""The directory where models are kept: a folder a model, each made whole or not at all."""

import errno
import fcntl
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from polarvec_server.errors import PolarvecServerError
from polarvec_server.models.catalogue import find_model

# Names of the hub: owner/name, or one name for models made here. A leading dot would hide the folder.
_NAME = re.compile(r"[A-Za-z0-9_][\w.-]*(/[A-Za-z0-9_][\w.-]*)?", re.ASCII)


class ModelStoreError(PolarvecServerError):
    """A model cannot be found, made or written."""


def folder_of(name: str, models_dir: Path) -> Path:
    """Returns where the model of an id or alias lies or will lie.

    Raises:
        ModelStoreError: The name is no model name.
    """
    known = find_model(name)
    model_id = known.id if known else name
    if not _NAME.fullmatch(model_id):
        raise ModelStoreError(f"{name!r} is not a model name; names look like e5-small or owner/model.")
    return models_dir / model_id.replace("/", "--")


def resolve(name_or_path: str, models_dir: Path) -> Path:
    """Returns the folder of a model: an existing path, or the name of a model that is in `models_dir`.

    Raises:
        ModelStoreError: There is neither; the message says which command brings the model.
    """
    name = name_or_path.split("@", 1)[0]
    if _NAME.fullmatch(name) and (folder := folder_of(name, models_dir)).is_dir():
        return folder
    path = Path(name_or_path).expanduser()
    if path.is_dir():
        return path
    if path.is_absolute() or name_or_path.startswith((".", "~")):
        raise ModelStoreError(f"There is no folder {path}.")
    command = f"pull {name_or_path}"
    if random := re.fullmatch(r"(tiny|arctic-l)(?:-(\d+))?", name, re.ASCII):
        command = f"random {random[1]}" + (f" --layers {random[2]}" if random[2] else "")
    raise ModelStoreError(
        f"There is no model {name_or_path} in {models_dir}; bring it with `polarvec-server models {command}`."
    )


def stored_folders(models_dir: Path) -> list[Path]:
    """Returns the model folders there are, by name; unfinished ones are hidden and not among them."""
    if not models_dir.is_dir():
        return []
    return sorted(path for path in models_dir.iterdir() if path.is_dir() and not path.name.startswith("."))


def build(folder: Path, fill: Callable[[Path], None]) -> Path:
    """Makes a folder that appears whole or not at all, once, whoever else wants it at the same time.

    Args:
        folder: Where it shall appear; what is there already is left alone.
        fill: Writes the content into the empty directory that it is given.

    Raises:
        ModelStoreError: It cannot be written.
    """
    with locked(folder):
        if folder.is_dir():
            return folder
        unfinished = folder.with_name(f".building-{folder.name}")
        # Left over by a process that was killed: the lock says that nobody is writing there now.
        shutil.rmtree(unfinished, ignore_errors=True)
        try:
            with as_store_error(folder):
                unfinished.mkdir(parents=True)
                fill(unfinished)
                unfinished.rename(folder)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
    return folder


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Holds the only right to make `folder`; the kernel gives it back when the process dies."""
    with as_store_error(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        lock = os.open(folder.with_name(f".{folder.name}.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


@contextmanager
def as_store_error(folder: Path) -> Iterator[None]:
    """Turns the operating system's errors into one sentence."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise ModelStoreError(f"The disk of {folder.parent} is full; make room and try again.") from error
        raise ModelStoreError(f"{folder} cannot be written ({error.strerror or error}).") from error
