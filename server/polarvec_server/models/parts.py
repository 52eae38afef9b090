"""The large files of a model folder: where the weights and the tokenizer lie."""

from pathlib import Path

from polarvec_server.models.json_file import ModelFolderError, read_object

_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")


def weight_files(path: Path, encoder_path: Path) -> tuple[Path, ...]:
    """Returns the safetensors files, one or the shards that the index names.

    Raises:
        ModelFolderError: There are none, or only pickles, or a shard is missing.
    """
    single = encoder_path / "model.safetensors"
    if single.is_file():
        return (single,)
    index = encoder_path / "model.safetensors.index.json"
    if not index.exists():
        pickles = sorted(file.name for pattern in _PICKLES for file in encoder_path.glob(pattern))
        if pickles:
            raise ModelFolderError(
                path,
                f"it has only pickled weights ({pickles[0]}), which can run code when they are read; "
                "bring model.safetensors.",
            )
        raise ModelFolderError(path, "model.safetensors is missing; it holds the weights.")
    shards = read_object(path, inside(path, index), "").get("weight_map")
    if not isinstance(shards, dict) or not shards or not all(isinstance(name, str) for name in shards.values()):
        raise ModelFolderError(path, f"{index.name} has no weight_map.")
    names = sorted(set(shards.values()))
    for name in names:
        if Path(name).name != name or not (encoder_path / name).is_file():
            raise ModelFolderError(path, f"{name} is missing; {index.name} lists it as a part of the weights.")
    return tuple(encoder_path / name for name in names)


def tokenizer_file(path: Path, encoder_path: Path) -> Path:
    """Returns tokenizer.json after a look whether it is JSON.

    Raises:
        ModelFolderError: It is missing or broken.
    """
    file = encoder_path / "tokenizer.json"
    name = inside(path, file)
    read_object(path, name, "open the folder with transformers once and save its fast tokenizer there")
    return file


def inside(path: Path, file: Path) -> str:
    """Returns a file's path as seen from the folder, for messages."""
    return str(file.relative_to(path))
