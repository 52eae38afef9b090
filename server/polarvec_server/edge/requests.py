"""Reads the fields of polarvec.v1 messages into the pipeline's own values, and refuses what it does not know."""

from __future__ import annotations

from polarvec_proto.v1 import embedding_pb2 as pb

from polarvec_server.errors import InvalidField, UnknownInputType, UnsupportedEncoding
from polarvec_server.pipeline.values import Encoding, InputType, Priority, TextOptions, Truncation, VectorOptions

# Keyed by int, because proto3 enums are open: a newer client may send any number.
_INPUT_TYPES: dict[int, InputType] = {
    pb.INPUT_TYPE_QUERY: InputType.QUERY,
    pb.INPUT_TYPE_DOCUMENT: InputType.DOCUMENT,
    pb.INPUT_TYPE_RAW: InputType.RAW,
}
_TRUNCATIONS: dict[int, Truncation] = {
    pb.TRUNCATION_UNSPECIFIED: Truncation.REFUSE,
    pb.TRUNCATION_END: Truncation.END,
    pb.TRUNCATION_START: Truncation.START,
}
_ENCODINGS: dict[int, Encoding] = {
    pb.ENCODING_UNSPECIFIED: Encoding.FLOAT32,
    pb.ENCODING_FLOAT32: Encoding.FLOAT32,
    pb.ENCODING_FLOAT16: Encoding.FLOAT16,
    pb.ENCODING_INT8: Encoding.INT8,
    pb.ENCODING_BINARY: Encoding.BINARY,
}
_PRIORITIES: dict[int, Priority] = {pb.PRIORITY_INTERACTIVE: Priority.INTERACTIVE, pb.PRIORITY_BULK: Priority.BULK}
ENCODING_NUMBERS = {
    Encoding.FLOAT32: pb.ENCODING_FLOAT32,
    Encoding.FLOAT16: pb.ENCODING_FLOAT16,
    Encoding.INT8: pb.ENCODING_INT8,
    Encoding.BINARY: pb.ENCODING_BINARY,
}


def read_text_options(request: pb.EmbedRequest | pb.TokenizeRequest, truncation: Truncation) -> TextOptions:
    """Reads input type and prompt.

    Raises:
        UnknownInputType: The input type is missing or unknown.
    """
    input_type = _INPUT_TYPES.get(request.input_type)
    if input_type is None:
        raise UnknownInputType(request.input_type)
    prompt = request.WhichOneof("prompt")
    return TextOptions(
        input_type,
        prompt_name=request.prompt_name if prompt == "prompt_name" else None,
        prompt_text=request.prompt_text if prompt == "prompt_text" else None,
        truncation=truncation,
    )


def read_truncation(value: int) -> Truncation:
    """Raises InvalidField for a number that is unknown here."""
    if value not in _TRUNCATIONS:
        raise InvalidField("truncation", "must be TRUNCATION_UNSPECIFIED, TRUNCATION_END or TRUNCATION_START")
    return _TRUNCATIONS[value]


def read_vector_options(request: pb.EmbedRequest) -> VectorOptions:
    """Raises UnsupportedEncoding for a number that is unknown here; the embedder checks the dimensions."""
    if request.encoding not in _ENCODINGS:
        raise UnsupportedEncoding(request.encoding)
    return VectorOptions(request.dimensions, request.unnormalized, _ENCODINGS[request.encoding])


def read_priority(value: int, input_type: InputType) -> Priority:
    """Returns the priority; unspecified goes by input type. Raises InvalidField for an unknown number."""
    if value == pb.PRIORITY_UNSPECIFIED:
        return Priority.INTERACTIVE if input_type is InputType.QUERY else Priority.BULK
    if value not in _PRIORITIES:
        raise InvalidField("priority", "must be PRIORITY_UNSPECIFIED, PRIORITY_INTERACTIVE or PRIORITY_BULK")
    return _PRIORITIES[value]
