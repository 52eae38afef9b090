"""Writes the small files that make weights and a tokenizer a folder that says how it wants to be used."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from polarvec_server.models.recipe import Pooling


@dataclass(frozen=True, slots=True)
class SentenceFiles:
    """What the small files shall say.

    Attributes:
        id: The model's id.
        revision: What the content was made of.
        source: Where it came from, in words.
        config: config.json.
        pooling: "cls" or "mean".
        prompts: Prefixes by name.
        max_seq_length: The most tokens of a text.
    """

    id: str
    revision: str
    source: str
    config: Mapping[str, object]
    pooling: Pooling
    prompts: Mapping[str, str]
    max_seq_length: int


def write_sentence_files(folder: Path, files: SentenceFiles) -> None:
    """Writes them; every model made here ends in unit length."""
    kinds = (("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Normalize", "Normalize"))
    modules = [
        {"idx": index, "name": str(index), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for index, (path, kind) in enumerate(kinds)
    ]
    pooling = {
        "word_embedding_dimension": files.config["hidden_size"],
        "pooling_mode_cls_token": files.pooling == "cls",
        "pooling_mode_mean_tokens": files.pooling == "mean",
        "pooling_mode_max_tokens": False,
        "pooling_mode_mean_sqrt_len_tokens": False,
        "pooling_mode_weightedmean_tokens": False,
        "pooling_mode_lasttoken": files.pooling == "last_token",
        "include_prompt": True,
    }
    write_json(folder / "config.json", files.config)
    write_json(folder / "modules.json", modules)
    write_json(folder / "1_Pooling" / "config.json", pooling)
    write_json(
        folder / "config_sentence_transformers.json",
        {"prompts": dict(files.prompts), "default_prompt_name": None, "similarity_fn_name": "cosine"},
    )
    write_json(folder / "sentence_bert_config.json", {"max_seq_length": files.max_seq_length, "do_lower_case": False})
    write_identity(folder, files.id, files.revision, files.source)


def write_identity(folder: Path, model_id: str, revision: str, source: str) -> None:
    """Writes polarvec.json: what the folder is called and where it came from."""
    write_json(folder / "polarvec.json", {"id": model_id, "revision": revision, "source": source})


def write_json(path: Path, value: object) -> None:
    """Writes one JSON file, making its directory."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
