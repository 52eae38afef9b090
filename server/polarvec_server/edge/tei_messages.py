"""Reads the fields of tei.v1 messages into the pipeline's own values, and writes its answers."""

from __future__ import annotations

import time

import numpy as np
from numpy.typing import NDArray

from polarvec_server.edge.text_groups import EmbeddedText
from polarvec_server.errors import InvalidField, UnsupportedDimensions
from polarvec_server.pipeline.values import InputType, TextOptions, TokenPieces, Truncation, VectorOptions
from polarvec_server.tei_proto import tei_pb2 as tei

# Keyed by int, because proto3 enums are open: a newer client may send any number.
_TRUNCATIONS: dict[int, Truncation] = {
    tei.TRUNCATION_DIRECTION_RIGHT: Truncation.END,
    tei.TRUNCATION_DIRECTION_LEFT: Truncation.START,
}
_DTYPES = {"f32": "float32", "bf16": "bfloat16", "fp16": "float16", "fp8": "float8"}
# Tag of field 1 with a length before its bytes: repeated float is packed.
_PACKED_EMBEDDINGS = b"\x0a"


def read_text_options(request: tei.EmbedRequest | tei.EncodeRequest, default_prompt: str) -> TextOptions:
    """Reads the prompt: unset means the default one, the empty name means none."""
    name = request.prompt_name if request.HasField("prompt_name") else default_prompt
    return TextOptions(
        InputType.RAW,
        prompt_name=name or None,
        truncation=_read_truncation(request) if isinstance(request, tei.EmbedRequest) else Truncation.REFUSE,
        field="inputs",
        single=True,
    )


def _read_truncation(request: tei.EmbedRequest) -> Truncation:
    """Raises InvalidField for a direction that is unknown here."""
    if request.truncation_direction not in _TRUNCATIONS:
        known = "TRUNCATION_DIRECTION_RIGHT or TRUNCATION_DIRECTION_LEFT"
        raise InvalidField("truncation_direction", f"must be {known}")
    return _TRUNCATIONS[request.truncation_direction] if request.truncate else Truncation.REFUSE


def read_vector_options(request: tei.EmbedRequest, max_dimensions: int) -> VectorOptions:
    """Reads what the vector shall look like; unlike in polarvec.v1 it can be cut anywhere.

    Raises:
        UnsupportedDimensions: Set, but not from 1 to `max_dimensions`.
    """
    if request.HasField("dimensions") and not 0 < request.dimensions <= max_dimensions:
        raise UnsupportedDimensions(request.dimensions, max_dimensions, step=1)
    normalize = request.normalize if request.HasField("normalize") else True
    return VectorOptions(request.dimensions, unnormalized=not normalize, dimensions_step=1)


def write_embedding(embedded: EmbeddedText, characters: int, started: float) -> tei.EmbedResponse:
    """Returns the answer for one text.

    Args:
        embedded: What became of it.
        characters: Its length without the prompt.
        started: When the call began, on the clock of time.monotonic.
    """
    response = _write_vector(embedded.vector)
    metadata, timings = response.metadata, embedded.timings
    metadata.compute_chars = characters
    metadata.compute_tokens = embedded.token_count
    metadata.tokenization_time_ns = round(timings.tokenize_ms * 1e6)
    metadata.queue_time_ns = round(timings.queue_ms * 1e6)
    metadata.inference_time_ns = round(timings.inference_ms * 1e6)
    metadata.total_time_ns = round((time.monotonic() - started) * 1e9)
    return response


def _write_vector(vector: NDArray[np.float32]) -> tei.EmbedResponse:
    """Returns the message made out of its bytes: 1 µs, where a list of 1,024 floats takes 22."""
    data = vector.astype("<f4", copy=False).tobytes()
    length, varint = len(data), bytearray()
    while length > 0x7F:
        varint.append(length & 0x7F | 0x80)
        length >>= 7
    varint.append(length)
    return tei.EmbedResponse.FromString(b"".join((_PACKED_EMBEDDINGS, varint, data)))


def write_headers(metadata: tei.Metadata, compute_type: str) -> list[tuple[str, str]]:
    """Returns what goes before a single answer: counts, and times in whole milliseconds."""
    total = str(metadata.total_time_ns // 1_000_000)
    return [
        ("x-compute-type", compute_type),
        ("x-compute-time", total),
        ("x-compute-characters", str(metadata.compute_chars)),
        ("x-compute-tokens", str(metadata.compute_tokens)),
        ("x-total-time", total),
        ("x-tokenization-time", str(metadata.tokenization_time_ns // 1_000_000)),
        ("x-queue-time", str(metadata.queue_time_ns // 1_000_000)),
        ("x-inference-time", str(metadata.inference_time_ns // 1_000_000)),
    ]


def write_tokens(tokens: TokenPieces) -> tei.EncodeResponse:
    """Returns the tokens; special ones have no place in the text."""
    columns = zip(tokens.ids, tokens.pieces, tokens.special, tokens.starts, tokens.stops, strict=True)
    return tei.EncodeResponse(
        tokens=[
            tei.SimpleToken(id=token_id, text=piece, special=True)
            if special
            else tei.SimpleToken(id=token_id, text=piece, start=start, stop=stop)
            for token_id, piece, special, start, stop in columns
        ]
    )


def dtype_name(precision: str) -> str:
    """Returns the number format as text-embeddings-inference calls it."""
    return _DTYPES.get(precision, precision)
