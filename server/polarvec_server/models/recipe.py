"""How a model wants to be used, read out of its Sentence-Transformers files: pooling, unit length, prompts, length."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal

from polarvec_server.models.json_file import ModelFolderError, read_object, read_value, whole_number

Pooling = Literal["cls", "mean", "last_token"]

_MODULES = "modules.json"
_PROMPTS = "config_sentence_transformers.json"
_LENGTH = "sentence_bert_config.json"

# Both spellings that Sentence-Transformers has written: a boolean a mode, and later one name.
_BOOLEANS: Mapping[str, Pooling] = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_lasttoken": "last_token",
}
_NAMES: Mapping[str, Pooling] = {
    "cls": "cls",
    "mean": "mean",
    "lasttoken": "last_token",
    "last_token": "last_token",
}


@dataclass(frozen=True, slots=True)
class Recipe:
    """What the Sentence-Transformers files say.

    Attributes:
        transformer: Where in the folder the network and the tokenizer lie; "." for the folder itself.
        pooling: Which vector stands for a text.
        pooled_dimensions: Numbers a pooled vector as the pooling's file has it; None if it does not say.
        normalize: Whether the folder ends with a Normalize module.
        prompts: Prefixes by name.
        default_prompt_name: The prompt that Sentence-Transformers adds when the caller names none.
        max_seq_length: The most tokens of a text; None if the folder does not say.
    """

    transformer: str
    pooling: Pooling
    pooled_dimensions: int | None
    normalize: bool
    prompts: Mapping[str, str]
    default_prompt_name: str | None
    max_seq_length: int | None


def read_recipe(folder: Path) -> Recipe:
    """Reads a folder's Sentence-Transformers files.

    Raises:
        ModelFolderError: A file is missing or wrong, or asks for something that is not supported here.
    """
    modules = _modules(folder)
    kinds = [kind for kind, _ in modules]
    if kinds not in (["Transformer", "Pooling"], ["Transformer", "Pooling", "Normalize"]):
        raise ModelFolderError(
            folder,
            f"{_MODULES} lists {', '.join(kinds) or 'nothing'}; supported is Transformer, Pooling and, optionally, "
            "Normalize, in this order.",
        )
    transformer, pooling_path = modules[0][1], modules[1][1]
    pooling, pooled_dimensions = _pooling(folder, f"{pooling_path}/config.json")
    prompts, default_prompt_name = _prompts(folder)
    return Recipe(
        transformer=transformer,
        pooling=pooling,
        pooled_dimensions=pooled_dimensions,
        normalize="Normalize" in kinds,
        prompts=prompts,
        default_prompt_name=default_prompt_name,
        max_seq_length=_max_seq_length(folder, str(PurePosixPath(transformer, _LENGTH))),
    )


def _modules(folder: Path) -> list[tuple[str, str]]:
    """Returns (kind, path in the folder) of each module, refusing code that the folder brings along."""
    entries = read_value(folder, _MODULES, "it lists the pooling, and without it nobody can know how the model pools")
    if not isinstance(entries, list):
        raise ModelFolderError(folder, f"{_MODULES} is not a list of modules.")
    modules = []
    for entry in entries:
        kind = entry.get("type") if isinstance(entry, dict) else None
        path = entry.get("path", "") if isinstance(entry, dict) else None
        if not isinstance(kind, str) or not isinstance(path, str):
            raise ModelFolderError(folder, f"{_MODULES} has an entry without a type and a path.")
        if not kind.startswith("sentence_transformers."):
            raise ModelFolderError(folder, f"{_MODULES} names {kind}: code of a model's own is never run here.")
        if PurePosixPath(path).is_absolute() or ".." in PurePosixPath(path).parts:
            raise ModelFolderError(folder, f"{_MODULES} points outside the folder ({path}).")
        modules.append((kind.rsplit(".", 1)[1], str(PurePosixPath(path))))
    return modules


def _pooling(folder: Path, name: str) -> tuple[Pooling, int | None]:
    values = read_object(folder, name, "it says how the model pools, and a guess would silently cost quality")
    wanted = {key for key, value in values.items() if key.startswith("pooling_mode_") and value is True}
    mode = values.get("pooling_mode")
    names = mode if isinstance(mode, list) else [] if mode is None else [mode]
    asked = sorted({str(_BOOLEANS.get(key, key)) for key in wanted} | {str(_NAMES.get(str(n), n)) for n in names})
    if not asked:
        raise ModelFolderError(folder, f"{name} does not say how the model pools.")
    if len(asked) > 1 or asked[0] not in _NAMES.values():
        raise ModelFolderError(folder, f"{name} asks for {' + '.join(asked)}; supported is cls, mean or lasttoken.")
    if values.get("include_prompt", True) is not True:
        raise ModelFolderError(folder, f"{name} leaves the prompt out of the pooling, which is not supported.")
    old = whole_number(folder, name, values, "word_embedding_dimension")
    dimensions = whole_number(folder, name, values, "embedding_dimension") if old is None else old
    return _NAMES[asked[0]], dimensions


def _prompts(folder: Path) -> tuple[dict[str, str], str | None]:
    """The file is optional: most models without prompts have none."""
    if not (folder / _PROMPTS).exists():
        return {}, None
    values = read_object(folder, _PROMPTS, "")
    prompts = values.get("prompts")
    prompts = {} if prompts is None else prompts
    if not isinstance(prompts, dict) or not all(isinstance(text, str) for text in prompts.values()):
        raise ModelFolderError(folder, f"{_PROMPTS} has prompts that are not a map of names to strings.")
    default = values.get("default_prompt_name")
    if default is not None and not (isinstance(default, str) and default in prompts):
        raise ModelFolderError(folder, f"{_PROMPTS} has the default prompt {default!r}, which is none of its prompts.")
    return dict(prompts), default


def _max_seq_length(folder: Path, name: str) -> int | None:
    if not (folder / name).exists():
        return None
    values = read_object(folder, name, "")
    if values.get("do_lower_case", False) is not False:
        raise ModelFolderError(folder, f"{name} wants texts put in lower case first, which is not supported.")
    return whole_number(folder, name, values, "max_seq_length")
