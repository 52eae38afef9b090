"""The tensors that an architecture needs, by name and shape, and the few that a folder may hold without being used."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from polarvec_encoder.architecture import Architecture

_ANCHOR = "embeddings.word_embeddings.weight"
_PREFIXES = ("", "roberta.", "bert.", "model.")
# Heads of pre-training and buffers that older versions of transformers stored: no embedding depends on them.
_IGNORED = ("pooler.", "lm_head.", "cls.")
_IGNORED_NAMES = frozenset({"embeddings.position_ids", "embeddings.token_type_ids"})


def prefix_of(names: Collection[str]) -> str:
    """Find what stands before every tensor's name ("" where nothing does or the folder fits no known layout)."""
    return next((prefix for prefix in _PREFIXES if prefix + _ANCHOR in names), "")


def is_ignored(name: str) -> bool:
    """Say whether a tensor, named without prefix, may be present without being used."""
    return name in _IGNORED_NAMES or name.startswith(_IGNORED)


def layer_name(layer: int, part: str) -> str:
    """Name one tensor of a layer, e.g. `encoder.layer.3.attention.self.query.weight`."""
    return f"encoder.layer.{layer}.{part}"


def is_linear(name: str) -> bool:
    """Say whether a tensor is the matrix of a linear layer, (outputs, inputs)."""
    return name.startswith("encoder.layer.") and name.endswith(".weight") and "LayerNorm" not in name


def scale_name(name: str) -> str:
    """Name the scales of a quantised matrix."""
    return f"{name}_scale"


def expected_shapes(architecture: Architecture) -> Mapping[str, tuple[int, ...]]:
    """Map the name of every needed tensor to its shape."""
    hidden, inner = architecture.hidden, architecture.intermediate
    shapes: dict[str, tuple[int, ...]] = {
        _ANCHOR: (architecture.vocabulary, hidden),
        "embeddings.position_embeddings.weight": (architecture.positions, hidden),
        "embeddings.token_type_embeddings.weight": (architecture.token_types, hidden),
        "embeddings.LayerNorm.weight": (hidden,),
        "embeddings.LayerNorm.bias": (hidden,),
    }
    dense = {
        "attention.self.query": (hidden, hidden),
        "attention.self.key": (hidden, hidden),
        "attention.self.value": (hidden, hidden),
        "attention.output.dense": (hidden, hidden),
        "intermediate.dense": (inner, hidden),
        "output.dense": (hidden, inner),
    }
    for layer in range(architecture.layers):
        for part, shape in dense.items():
            shapes[layer_name(layer, f"{part}.weight")] = shape
            shapes[layer_name(layer, f"{part}.bias")] = shape[:1]
        for part in ("attention.output.LayerNorm", "output.LayerNorm"):
            shapes[layer_name(layer, f"{part}.weight")] = (hidden,)
            shapes[layer_name(layer, f"{part}.bias")] = (hidden,)
    return shapes
