"""Reads what the OpenAI door takes into the pipeline's own values, and refuses what it does not know."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from polarvec_server.edge.http_call import check_unicode
from polarvec_server.edge.registry import ModelRegistry, ServedModel
from polarvec_server.errors import EmptyText, InvalidField, NoTexts, UnknownModel
from polarvec_server.pipeline.values import Encoding, InputType, TextOptions, Truncation, VectorOptions

FIELD = "input"
# A client that cannot say what a text is for can still name a model; a bare id means document.
SUFFIXES = {"query": InputType.QUERY, "document": InputType.DOCUMENT}
_INPUT_TYPES = {kind.value: kind for kind in InputType}
_TRUNCATIONS = {kind.value: kind for kind in Truncation}
_FORMATS = {
    "float": Encoding.FLOAT32,
    "base64": Encoding.FLOAT32,
    "int8": Encoding.INT8,
    "binary": Encoding.BINARY,
}


@dataclass(frozen=True, slots=True)
class EmbeddingsRequest:
    """One POST /v1/embeddings; either `texts` or `token_ids` is empty."""

    model: ServedModel
    texts: Sequence[str]
    token_ids: Sequence[Sequence[int]]
    text_options: TextOptions
    vector_options: VectorOptions
    # float, base64, int8 or binary.
    encoding_format: str


def read_request(fields: Mapping[str, Any], registry: ModelRegistry) -> EmbeddingsRequest:
    """Reads a request's fields; unknown ones are ignored, as OpenAI does.

    Raises:
        RequestError: What docs/api.md lists for POST /v1/embeddings.
    """
    model, suffixed = find_model(_string(fields, "model"), registry)
    encoding_format = _choice(fields, "encoding_format", {name: name for name in _FORMATS}, "float")
    asked = _choice(fields, "input_type", _INPUT_TYPES, None)
    if asked and suffixed and asked is not suffixed:
        raise InvalidField("input_type", f"contradicts the model's suffix :{suffixed.value}")
    options = TextOptions(
        asked or suffixed or InputType.DOCUMENT,
        truncation=_choice(fields, "truncation", _TRUNCATIONS, Truncation.REFUSE),
        field=FIELD,
    )
    texts, token_ids = _read_input(fields.get(FIELD), model)
    dimensions = fields.get("dimensions")
    if dimensions is not None and type(dimensions) is not int:
        raise InvalidField("dimensions", "must be a whole number")
    vector_options = VectorOptions(dimensions or 0, encoding=_FORMATS[encoding_format])
    return EmbeddingsRequest(model, texts, token_ids, options, vector_options, encoding_format)


def find_model(name: str, registry: ModelRegistry) -> tuple[ServedModel, InputType | None]:
    """Returns a model, and the input type that a suffix of its id names. Raises UnknownModel or PermissionDenied."""
    if not name:
        raise InvalidField("model", "is required; GET /v1/models lists them")
    try:
        return registry.find(name), None
    except UnknownModel:
        bare, _, suffix = name.rpartition(":")
        if not bare or suffix not in SUFFIXES:
            raise
        return registry.find(bare), SUFFIXES[suffix]


def _read_input(given: Any, model: ServedModel) -> tuple[list[str], list[list[int]]]:
    """Returns texts or token ids, the other list empty."""
    if given is None:
        raise InvalidField(FIELD, "is required: a text, a list of texts, token ids, or a list of lists of them")
    if isinstance(given, str):
        given = [given]
    if not isinstance(given, list):
        raise InvalidField(FIELD, "must be a text, a list of texts, token ids, or a list of lists of them")
    if not given:
        raise NoTexts(FIELD)
    if type(given[0]) is int:
        given = [given]
    model.check_text_count(len(given), FIELD)
    kind = type(given[0])
    for index, item in enumerate(given):
        if type(item) is not kind or kind not in (str, list):
            raise InvalidField(f"{FIELD}[{index}]", "is neither a text nor token ids like those before it")
    if kind is str:
        check_unicode(given, FIELD)
        return given, []
    for index, ids in enumerate(given):
        if not ids:
            raise EmptyText(FIELD, index)
        if any(type(number) is not int for number in ids):
            raise InvalidField(f"{FIELD}[{index}]", "holds something else than whole numbers")
    return [], given


def _string(fields: Mapping[str, Any], name: str) -> str:
    value = fields.get(name)
    if value is not None and not isinstance(value, str):
        raise InvalidField(name, "must be a string")
    return value or ""


def _choice(fields: Mapping[str, Any], name: str, choices: Mapping[str, Any], default: Any) -> Any:
    value = fields.get(name)
    if value is None:
        return default
    if not isinstance(value, str) or value not in choices:
        raise InvalidField(name, f"must be one of {', '.join(choices)}")
    return choices[value]
