"""The shape of an encoder as its config.json states it: what loading reads first, and what all engines build from."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from polarvec_encoder.errors import ModelRefused

Pooling = Literal["cls", "mean", "last_token"]
POOLINGS: tuple[Pooling, ...] = ("cls", "mean", "last_token")

# Where each family starts to count positions: RoBERTa's begin after the padding id, BERT's at zero.
_AFTER_PADDING = {"xlm-roberta": True, "roberta": True, "bert": False}


@dataclass(frozen=True, slots=True)
class Architecture:
    """A post-LN encoder with learned absolute positions (BERT, RoBERTa, XLM-RoBERTa)."""

    model_type: str
    name: str
    layers: int
    hidden: int
    heads: int
    intermediate: int
    vocabulary: int
    positions: int
    """Rows of the position table, including those before `first_position`."""
    token_types: int
    layer_norm_eps: float
    pad_id: int
    first_position: int
    """Position of a text's first token."""
    skips_padding: bool
    """True where a padding id inside a text takes no position (the RoBERTa family)."""

    @property
    def head_dimensions(self) -> int:
        """Width of one attention head."""
        return self.hidden // self.heads

    @property
    def max_tokens(self) -> int:
        """Tokens of the longest text that the position table covers, special tokens included."""
        return self.positions - self.first_position


def read_config(folder: Path) -> Mapping[str, Any]:
    """Read config.json of a model folder.

    Raises:
        ModelRefused: The file is missing or is not a JSON object.
    """
    path = folder / "config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ModelRefused(f"{folder} has no config.json: point the server at a complete model folder.") from None
    except (OSError, ValueError) as error:
        raise ModelRefused(f"{path} cannot be read ({type(error).__name__}): fetch the model again.") from None
    if not isinstance(config, dict):
        raise ModelRefused(f"{path} is not a JSON object: fetch the model again.")
    return config


def read_architecture(folder: Path) -> Architecture:
    """Turn config.json into an `Architecture`, guessing nothing that changes the vectors.

    Raises:
        ModelRefused: A field is missing or out of range, or the model does something that no engine here computes.
    """
    config = read_config(folder)
    model_type = config.get("model_type")
    if model_type not in _AFTER_PADDING:
        known = ", ".join(sorted(_AFTER_PADDING))
        raise ModelRefused(f"{folder}/config.json says model_type {model_type!r}, but the encoder runs {known} only.")
    _refuse_unsupported(folder, config)
    skips_padding = _AFTER_PADDING[model_type]
    pad_id = _integer(folder, config, "pad_token_id", least=0, default=1 if skips_padding else 0)
    architecture = Architecture(
        model_type=model_type,
        name=str((config.get("architectures") or [model_type])[0]),
        layers=_integer(folder, config, "num_hidden_layers"),
        hidden=_integer(folder, config, "hidden_size"),
        heads=_integer(folder, config, "num_attention_heads"),
        intermediate=_integer(folder, config, "intermediate_size"),
        vocabulary=_integer(folder, config, "vocab_size"),
        positions=_integer(folder, config, "max_position_embeddings"),
        token_types=_integer(folder, config, "type_vocab_size"),
        layer_norm_eps=_eps(folder, config),
        pad_id=pad_id,
        first_position=pad_id + 1 if skips_padding else 0,
        skips_padding=skips_padding,
    )
    if architecture.hidden % architecture.heads:
        raise ModelRefused(f"{folder}/config.json: hidden_size is not a multiple of num_attention_heads.")
    if architecture.max_tokens < 1:
        raise ModelRefused(f"{folder}/config.json: max_position_embeddings leaves no position for a token.")
    return architecture


def _refuse_unsupported(folder: Path, config: Mapping[str, Any]) -> None:
    activation = config.get("hidden_act", "gelu")
    if activation != "gelu":
        raise ModelRefused(f"{folder}/config.json says hidden_act {activation!r}, but the encoder computes gelu only.")
    positions = config.get("position_embedding_type", "absolute")
    if positions not in ("absolute", None):
        raise ModelRefused(
            f"{folder}/config.json says position_embedding_type {positions!r}, but only absolute is run."
        )
    if config.get("is_decoder") or config.get("add_cross_attention"):
        raise ModelRefused(f"{folder}/config.json describes a decoder, but the encoder runs bidirectional models only.")


def _integer(folder: Path, config: Mapping[str, Any], key: str, least: int = 1, default: int | None = None) -> int:
    value = config.get(key)
    if value is None and default is not None:
        return default
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise ModelRefused(
            f"{folder}/config.json needs {key} as a whole number of at least {least}, it says {value!r}."
        )
    return value


def _eps(folder: Path, config: Mapping[str, Any]) -> float:
    # The default is the one that transformers' configuration classes of all three families state.
    value = config.get("layer_norm_eps", 1e-12)
    if not isinstance(value, int | float) or not 0 < value < 1:
        raise ModelRefused(f"{folder}/config.json needs layer_norm_eps between 0 and 1, it says {value!r}.")
    return float(value)
