"""Part `model`: a folder of the arctic shape with random weights and a tokenizer of made-up words; needs no network."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import torch
from measuring import say
from safetensors.torch import save_file
from scale import VOCABULARY_START, Scale
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from tokenizers.processors import TemplateProcessing

_SPECIAL = ("<s>", "<pad>", "</s>", "<unk>")


def run(scale: Scale, earlier: dict[str, Any]) -> dict[str, Any]:
    """Write the folder unless it is there."""
    if not (scale.folder / "modules.json").is_file():
        scale.folder.mkdir(parents=True, exist_ok=True)
        save_file(_tensors(scale), scale.folder / "model.safetensors", metadata={"format": "pt"})
        _write_tokenizer(scale)
        _write_json_files(scale)
    size = (scale.folder / "model.safetensors").stat().st_size
    say(f"  {scale.folder}: {size / 1e6:,.0f} MB of bf16 weights")
    return {"folder": str(scale.folder), "bytes": size}


def words(count: int, seed: int) -> str:
    """A text of `count` tokens, <s> and </s> included."""
    generator = torch.Generator().manual_seed(seed)
    return " ".join(f"w{number}" for number in torch.randint(0, 900, (count - 2,), generator=generator).tolist())


def _tensors(scale: Scale) -> dict[str, torch.Tensor]:
    """Seeded normal numbers: matrices keep the size of what they multiply, biases and norms differ from 0 and 1."""
    generator = torch.Generator(scale.device).manual_seed(20)
    columns, inner = scale.columns, scale.inner
    shapes: dict[str, tuple[int, ...]] = {
        "embeddings.word_embeddings.weight": (scale.vocabulary, columns),
        "embeddings.position_embeddings.weight": (scale.max_tokens + 2, columns),
        "embeddings.token_type_embeddings.weight": (1, columns),
        "embeddings.LayerNorm.weight": (columns,),
        "embeddings.LayerNorm.bias": (columns,),
    }
    dense = {
        "attention.self.query": (columns, columns),
        "attention.self.key": (columns, columns),
        "attention.self.value": (columns, columns),
        "attention.output.dense": (columns, columns),
        "intermediate.dense": (inner, columns),
        "output.dense": (columns, inner),
    }
    for layer in range(scale.layers):
        for part, shape in dense.items():
            shapes[f"encoder.layer.{layer}.{part}.weight"] = shape
            shapes[f"encoder.layer.{layer}.{part}.bias"] = shape[:1]
        for part in ("attention.output.LayerNorm", "output.LayerNorm"):
            shapes[f"encoder.layer.{layer}.{part}.weight"] = (columns,)
            shapes[f"encoder.layer.{layer}.{part}.bias"] = (columns,)
    tensors = {}
    for name, shape in shapes.items():
        matrix = len(shape) == 2 and not name.startswith("embeddings.")
        deviation = 1 / math.sqrt(shape[1]) if matrix else 0.02
        numbers = torch.randn(shape, generator=generator, device=scale.device) * deviation
        tensors[name] = (numbers + float(name.endswith("LayerNorm.weight"))).to(torch.bfloat16).cpu()
    return tensors


def _write_tokenizer(scale: Scale) -> None:
    names = [*_SPECIAL, *(f"w{number}" for number in range(scale.vocabulary - VOCABULARY_START))]
    tokenizer = Tokenizer(WordLevel({name: place for place, name in enumerate(names)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = WhitespaceSplit()
    tokenizer.add_special_tokens(list(_SPECIAL))
    tokenizer.post_processor = TemplateProcessing(single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)])
    tokenizer.save(str(scale.folder / "tokenizer.json"))


def _write_json_files(scale: Scale) -> None:
    kinds = (("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Normalize", "Normalize"))
    files: dict[str, Any] = {
        "config.json": {
            "architectures": ["XLMRobertaModel"],
            "model_type": "xlm-roberta",
            "hidden_size": scale.columns,
            "num_hidden_layers": scale.layers,
            "num_attention_heads": scale.heads,
            "intermediate_size": scale.inner,
            "vocab_size": scale.vocabulary,
            "max_position_embeddings": scale.max_tokens + 2,
            "type_vocab_size": 1,
            "layer_norm_eps": 1e-5,
            "hidden_act": "gelu",
            "pad_token_id": 1,
            "bos_token_id": 0,
            "eos_token_id": 2,
        },
        "tokenizer_config.json": {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "model_max_length": scale.max_tokens,
            "bos_token": "<s>",
            "cls_token": "<s>",
            "pad_token": "<pad>",
            "eos_token": "</s>",
            "sep_token": "</s>",
            "unk_token": "<unk>",
        },
        "1_Pooling/config.json": {
            "word_embedding_dimension": scale.columns,
            "pooling_mode_cls_token": True,
            "pooling_mode_mean_tokens": False,
            "pooling_mode_max_tokens": False,
            "pooling_mode_mean_sqrt_len_tokens": False,
        },
        "sentence_bert_config.json": {"max_seq_length": scale.max_tokens, "do_lower_case": False},
        "config_sentence_transformers.json": {"prompts": {"query": ""}, "default_prompt_name": None},
        # Last, for it says that the folder is whole.
        "modules.json": [
            {"idx": index, "name": str(index), "path": path, "type": f"sentence_transformers.models.{kind}"}
            for index, (path, kind) in enumerate(kinds)
        ],
    }
    for name, content in files.items():
        path = Path(scale.folder, name)
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
