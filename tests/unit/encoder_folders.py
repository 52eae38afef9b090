"""Tiny random model folders for the encoder's tests, written by transformers itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import BertConfig, BertModel, PreTrainedModel, XLMRobertaConfig, XLMRobertaModel

VOCABULARY = 300
POSITIONS = 512


def tiny_config(family: str, **changes: Any) -> dict[str, Any]:
    shape = {
        "vocab_size": VOCABULARY,
        "hidden_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 128,
        "max_position_embeddings": POSITIONS + (2 if family == "xlm-roberta" else 0),
        "type_vocab_size": 1 if family == "xlm-roberta" else 2,
        "layer_norm_eps": 1e-5,
    }
    return shape | changes


def write_model(folder: Path, family: str = "xlm-roberta", **changes: Any) -> PreTrainedModel:
    """Writes config.json and model.safetensors and returns the model that they hold.

    Every parameter is drawn wide, biases and layer norms too, so that leaving one out or swapping two shows.
    """
    transformers.utils.logging.disable_progress_bar()
    torch.manual_seed(7)
    config_class, model_class = {
        "xlm-roberta": (XLMRobertaConfig, XLMRobertaModel),
        "bert": (BertConfig, BertModel),
    }[family]
    model = model_class(config_class(**tiny_config(family, **changes)), add_pooling_layer=False).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            spread = 0.5 if "embeddings" in name and "LayerNorm" not in name else 0.12
            parameter.normal_(1.0 if name.endswith("LayerNorm.weight") else 0.0, spread)
    model.save_pretrained(folder)
    return model
