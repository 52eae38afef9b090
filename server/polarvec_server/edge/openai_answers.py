"""Writes the OpenAI door's JSON: embeddings, models, errors."""

from __future__ import annotations

import asyncio
import base64
import json
from typing import Any

import numpy as np
from numpy.typing import NDArray

from polarvec_server.edge.registry import ServedModel
from polarvec_server.errors import RequestError
from polarvec_server.pipeline.values import EncodedVectors

# Numbers written as JSON at a time, about 10 ms; then others have their turn on the event loop.
_NUMBERS_A_TURN = 16_384
# Where OpenAI has a code for it; everything else carries our own reason.
_OPENAI_CODES = {
    "UNKNOWN_MODEL": "model_not_found",
    "UNAUTHENTICATED": "invalid_api_key",
    "OVERLOADED": "rate_limit_exceeded",
    "QUOTA_EXCEEDED": "insufficient_quota",
}
_OPENAI_TYPES = {
    "UNAUTHENTICATED": "authentication_error",
    "PERMISSION_DENIED": "permission_error",
    "RESOURCE_EXHAUSTED": "rate_limit_error",
    "INTERNAL": "server_error",
    "UNAVAILABLE": "server_error",
    "DEADLINE_EXCEEDED": "server_error",
}


def error_body(error: RequestError) -> dict[str, Any]:
    """Returns an error in OpenAI's form."""
    return {
        "error": {
            "message": error.message,
            "type": _OPENAI_TYPES.get(error.code.name, "invalid_request_error"),
            "param": error.field or None,
            "code": _OPENAI_CODES.get(error.reason, error.reason.lower()),
        }
    }


def model_body(model: ServedModel, suffix: str = "") -> dict[str, Any]:
    """Returns a model in OpenAI's form, and what callers of ours want to know besides."""
    message = model.message
    return {
        "id": f"{model.id}:{suffix}" if suffix else model.id,
        "object": "model",
        "created": 0,
        "owned_by": "polarvec",
        "dimensions": message.dimensions,
        "max_tokens": message.max_token_count,
        "fingerprint": message.fingerprint,
    }


async def embeddings_body(model: ServedModel, encoded: EncodedVectors, as_numbers: bool, token_count: int) -> bytes:
    """Writes the answer of POST /v1/embeddings.

    Args:
        model: Who made the vectors.
        encoded: The vectors; INT8 with its scales.
        as_numbers: JSON numbers in place of base64; FLOAT32 only.
        token_count: Tokens read.
    """
    rows = await _number_rows(encoded) if as_numbers else _base64_rows(encoded)
    scales = [""] * len(rows)
    if encoded.scales is not None:
        scales = [f',"scale":{scale!r}' for scale in encoded.scales.tolist()]
    data = ",".join(
        f'{{"object":"embedding","index":{index},"embedding":{row}{scale}}}'
        for index, (row, scale) in enumerate(zip(rows, scales, strict=True))
    )
    tail = {
        "model": model.id,
        "fingerprint": model.fingerprint,
        "usage": {"prompt_tokens": token_count, "total_tokens": token_count},
    }
    return f'{{"object":"list","data":[{data}],{json.dumps(tail)[1:]}'.encode()


def _base64_rows(encoded: EncodedVectors) -> list[str]:
    size = encoded.row_bytes
    data = memoryview(encoded.data)
    return [f'"{base64.b64encode(data[at : at + size]).decode()}"' for at in range(0, len(data), size)]


async def _number_rows(encoded: EncodedVectors) -> list[str]:
    vectors: NDArray[np.float32] = np.frombuffer(encoded.data, "<f4").reshape(-1, encoded.dimensions)
    # Nine digits give every float32 back, in a quarter of the time that json takes for the seventeen of a float64.
    row_format = f"[{','.join(['%.9g'] * encoded.dimensions)}]"
    rows, turn = [], max(1, _NUMBERS_A_TURN // encoded.dimensions)
    for index, vector in enumerate(vectors):
        if index and index % turn == 0:
            await asyncio.sleep(0)
        rows.append(row_format % tuple(vector.tolist()))
    return rows
