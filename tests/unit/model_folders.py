"""Small real model folders for tests: a BertModel of a few kilobytes with random weights and a tokenizer."""

import json
import re
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file
from tokenizers import Tokenizer, models, pre_tokenizers, processors

_HIDDEN, _WIDE, _LAYERS = 32, 64, 2


def write_small_model(folder: Path) -> Path:
    """Writes a complete folder: BERT, mean pooling, Normalize, both prompts, 64 positions."""
    folder.mkdir(parents=True)
    vocabulary = ["<s>", "<pad>", "</s>", "<unk>", "query", "passage", ":", "이", "모델", "the", "fox", "dog", "2"]
    tokenizer = Tokenizer(models.WordLevel({word: at for at, word in enumerate(vocabulary)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    save_file(small_weights(len(vocabulary)), folder / "model.safetensors", metadata={"format": "pt"})
    files = {
        "config.json": {
            "architectures": ["BertModel"],
            "model_type": "bert",
            "hidden_size": _HIDDEN,
            "num_hidden_layers": _LAYERS,
            "num_attention_heads": 4,
            "intermediate_size": _WIDE,
            "vocab_size": len(vocabulary),
            "max_position_embeddings": 64,
            "type_vocab_size": 2,
            "layer_norm_eps": 1e-12,
            "hidden_act": "gelu",
            "pad_token_id": 1,
        },
        "modules.json": [module("Transformer", ""), module("Pooling", "1_Pooling"), module("Normalize", "2_Normalize")],
        "1_Pooling/config.json": {"word_embedding_dimension": _HIDDEN, "pooling_mode_mean_tokens": True},
        "config_sentence_transformers.json": {"prompts": {"query": "query: ", "passage": "passage: "}},
        "sentence_bert_config.json": {"max_seq_length": 48, "do_lower_case": False},
        "tokenizer_config.json": {"model_max_length": 64},
    }
    for name, value in files.items():
        write(folder, name, value)
    return folder


def module(kind: str, path: str) -> dict[str, object]:
    return {"idx": 0, "name": "0", "path": path, "type": f"sentence_transformers.models.{kind}"}


def write(folder: Path, name: str, value: object) -> None:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(json.dumps(value), encoding="utf-8")


def change(folder: Path, name: str, **values: object) -> None:
    """Sets keys of a JSON file; None takes a key away."""
    old = json.loads((folder / name).read_text(encoding="utf-8"))
    write(folder, name, {key: value for key, value in (old | values).items() if value is not None})


def small_weights(rows: int) -> dict[str, np.ndarray]:
    random = np.random.default_rng(7)
    shapes: dict[str, tuple[int, ...]] = {
        "embeddings.word_embeddings.weight": (rows, _HIDDEN),
        "embeddings.position_embeddings.weight": (64, _HIDDEN),
        "embeddings.token_type_embeddings.weight": (2, _HIDDEN),
        "embeddings.LayerNorm.weight": (_HIDDEN,),
        "embeddings.LayerNorm.bias": (_HIDDEN,),
    }
    for layer in range(_LAYERS):
        stem = f"encoder.layer.{layer}."
        for name in ("attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense"):
            shapes |= {f"{stem}{name}.weight": (_HIDDEN, _HIDDEN), f"{stem}{name}.bias": (_HIDDEN,)}
        shapes |= {f"{stem}intermediate.dense.weight": (_WIDE, _HIDDEN), f"{stem}intermediate.dense.bias": (_WIDE,)}
        shapes |= {f"{stem}output.dense.weight": (_HIDDEN, _WIDE), f"{stem}output.dense.bias": (_HIDDEN,)}
        for name in ("attention.output.LayerNorm", "output.LayerNorm"):
            shapes |= {f"{stem}{name}.weight": (_HIDDEN,), f"{stem}{name}.bias": (_HIDDEN,)}
    weights = {name: random.standard_normal(shape).astype(np.float32) * 0.3 for name, shape in shapes.items()}
    return {name: array + 1 if re.search(r"LayerNorm\.weight$", name) else array for name, array in weights.items()}
