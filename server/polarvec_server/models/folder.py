"""A model folder and what it says about itself: the start of everything that serves a model."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from polarvec_server.models.catalogue import find_model
from polarvec_server.models.file_hash import content_hash, hash_values
from polarvec_server.models.json_file import ModelFolderError, read_object, whole_number
from polarvec_server.models.parts import inside, tokenizer_file, weight_files
from polarvec_server.models.recipe import Pooling, Recipe, read_recipe

__all__ = ["ModelFolder", "ModelFolderError", "Pooling", "fingerprint", "read_folder"]

# Families whose first position is pad_token_id + 1, so that their position table is longer than what they read.
_OFFSET_FAMILIES = ("xlm-roberta", "roberta", "camembert", "xlm-roberta-xl")
# Lines of config.json that change between library versions and never change a vector.
_NOT_IN_THE_SPACE = ("_name_or_path", "transformers_version", "torch_dtype", "dtype", "architectures")


@dataclass(frozen=True, slots=True)
class ModelFolder:
    """What a folder says about its model.

    Attributes:
        path: The folder.
        id: What callers name; from polarvec.json, else the folder's name.
        revision: The commit at the model's source; empty if there is none.
        source: Where the folder came from, in words; empty if nobody wrote it down.
        model_type: The family, as in config.json: "xlm-roberta", "bert".
        architecture: The class of the network, as in config.json; empty if it does not say.
        encoder_path: Where config.json and the weights lie: the folder or one inside it.
        dimensions: Numbers a vector.
        trained_dimensions: Shorter dimensions that the model was trained for, most first.
        max_tokens: The most tokens of a text, special tokens included.
        pooling: Which vector stands for a text.
        normalize: Whether the model itself ends in unit length.
        prompts: Prefixes by name.
        default_prompt_name: The prompt that Sentence-Transformers would add unasked; None if none.
        weight_files: The safetensors files.
        tokenizer_file: tokenizer.json.
    """

    path: Path
    id: str
    revision: str
    source: str
    model_type: str
    architecture: str
    encoder_path: Path
    dimensions: int
    trained_dimensions: tuple[int, ...]
    max_tokens: int
    pooling: Pooling
    normalize: bool
    prompts: Mapping[str, str]
    default_prompt_name: str | None
    weight_files: tuple[Path, ...]
    tokenizer_file: Path


def read_folder(path: Path) -> ModelFolder:
    """Reads a folder without loading its weights.

    Raises:
        ModelFolderError: The folder does not say what is needed, or asks for something that is not supported.
    """
    if not path.is_dir():
        raise ModelFolderError(path, "there is no such folder.")
    recipe = read_recipe(path)
    encoder_path = path / recipe.transformer
    config = _config(path, encoder_path)
    dimensions = _required(path, config, "hidden_size")
    if recipe.pooled_dimensions not in (None, dimensions):
        raise ModelFolderError(
            path, f"config.json has {dimensions} dimensions, its pooling has {recipe.pooled_dimensions}."
        )
    identity = _identity(path)
    known = find_model(identity["id"])
    said = any(recipe.prompts.values())
    return ModelFolder(
        path=path,
        id=identity["id"],
        revision=identity["revision"],
        source=identity["source"],
        model_type=str(config["model_type"]),
        architecture=_architecture(path, config),
        encoder_path=encoder_path,
        dimensions=dimensions,
        trained_dimensions=known.trained_dimensions if known else (),
        max_tokens=_max_tokens(path, encoder_path, config, recipe),
        pooling=recipe.pooling,
        normalize=recipe.normalize,
        # A recent Sentence-Transformers writes empty prompts where a model was saved without any.
        prompts=dict(known.prompts) if known and not said and known.prompts else recipe.prompts,
        default_prompt_name=recipe.default_prompt_name,
        weight_files=weight_files(path, encoder_path),
        tokenizer_file=tokenizer_file(path, encoder_path),
    )


def fingerprint(folder: ModelFolder, precision: str, cache_dir: Path) -> str:
    """Returns 12 hexadecimal digits that name the embedding space.

    Equal digits mean that vectors may be compared. In it: the weights, config.json without its book-keeping, the
    tokenizer, pooling, unit length, prompts, maximum length and precision; not in it: the folder's place and name.

    Args:
        folder: The model.
        precision: The number format of the computation.
        cache_dir: Where the hashes of large files are kept, by path, size and time of change.

    Raises:
        ModelFolderError: A file cannot be read.
    """
    config = read_object(folder.path, inside(folder.path, folder.encoder_path / "config.json"), "")
    try:
        weights = [content_hash(file, cache_dir) for file in folder.weight_files]
        tokenizer = content_hash(folder.tokenizer_file, cache_dir)
    except OSError as error:
        raise ModelFolderError(folder.path, f"{error.filename} cannot be read ({error.strerror}).") from error
    return hash_values(
        {
            "weights": weights,
            "config": {key: value for key, value in config.items() if key not in _NOT_IN_THE_SPACE},
            "tokenizer": tokenizer,
            "pooling": folder.pooling,
            "normalize": folder.normalize,
            "prompts": dict(folder.prompts),
            "max_tokens": folder.max_tokens,
            "precision": precision,
        }
    )[:12]


def _identity(path: Path) -> dict[str, str]:
    values: Mapping[str, object] = {}
    if (path / "polarvec.json").exists():
        values = read_object(path, "polarvec.json", "")
    identity = {"id": path.resolve().name, "revision": "", "source": ""} | dict(values)
    for key in ("id", "revision", "source"):
        if not isinstance(identity[key], str) or (key == "id" and not identity[key]):
            raise ModelFolderError(path, f"polarvec.json has {key}: {identity[key]!r} where a string is wanted.")
    return {key: str(identity[key]) for key in ("id", "revision", "source")}


def _config(path: Path, encoder_path: Path) -> Mapping[str, object]:
    name = inside(path, encoder_path / "config.json")
    config = read_object(path, name, "it says what network this is")
    tokenizer_name = inside(path, encoder_path / "tokenizer_config.json")
    tokenizer = read_object(path, tokenizer_name, "") if (path / tokenizer_name).exists() else {}
    for file, values in ((name, config), (tokenizer_name, tokenizer)):
        if values.get("auto_map"):
            raise ModelFolderError(
                path, f"{file} has an auto_map: the model needs code of its own, which is never run here."
            )
    if not isinstance(config.get("model_type"), str):
        raise ModelFolderError(path, f"{name} does not name its model_type.")
    return config


def _architecture(path: Path, config: Mapping[str, object]) -> str:
    names = config.get("architectures") or [""]
    if not isinstance(names, list) or not isinstance(names[0], str):
        raise ModelFolderError(path, "config.json has architectures that are not a list of names.")
    return names[0]


def _required(path: Path, config: Mapping[str, object], key: str) -> int:
    value = whole_number(path, "config.json", config, key)
    if value is None:
        raise ModelFolderError(path, f"config.json does not say {key}.")
    return value


def _max_tokens(path: Path, encoder_path: Path, config: Mapping[str, object], recipe: Recipe) -> int:
    """The smaller of what the folder allows and what the position table holds, as Sentence-Transformers has it."""
    positions = _required(path, config, "max_position_embeddings")
    if config["model_type"] in _OFFSET_FAMILIES:
        pad = config.get("pad_token_id", 1)
        if isinstance(pad, bool) or not isinstance(pad, int) or not 0 <= pad < positions:
            raise ModelFolderError(path, f"config.json has pad_token_id: {pad!r}, which its positions start after.")
        positions -= pad + 1
    limit = recipe.max_seq_length
    name = inside(path, encoder_path / "tokenizer_config.json")
    if limit is None and (path / name).exists():
        limit = whole_number(path, name, read_object(path, name, ""), "model_max_length")
    tokens = positions if limit is None else min(limit, positions)
    if tokens < 3:
        raise ModelFolderError(path, f"it reads {tokens} tokens of a text, too few for even one word.")
    return tokens
