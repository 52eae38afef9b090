"""The golden self-test: stored texts that the engine must encode to stored vectors before the model becomes ready.

The file holds {"format": 1, "token_ids": [[...], ...], "vectors": [base64 of little-endian float32, unit length, ...]}.
"""

from __future__ import annotations

import base64
import json
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from polarvec_encoder.batch import PackedBatch
from polarvec_encoder.engine import Engine, encode_all
from polarvec_encoder.errors import EncoderError, SelfTestFailed

_FORMAT = 1
# A damaged build, driver or file is far below these; quality is measured elsewhere (docs/benchmarks.md).
_MIN_COSINE = {"f32": 0.9999, "fp16": 0.9999, "bf16": 0.999, "int8": 0.99, "fp8": 0.98}


def parse_ids(text: str) -> list[list[int]]:
    """Read token ids as given on the command line: "0,1,2;0,5,2".

    Raises:
        EncoderError: It is not that.
    """
    try:
        return [[int(token) for token in one.split(",")] for one in text.split(";")]
    except ValueError:
        raise EncoderError('The golden ids must look like "0,1,2;0,5,2": token ids of each text.') from None


def write_golden(path: Path, engine: Engine, texts: Sequence[Sequence[int]], vocabulary: int, max_tokens: int) -> None:
    """Encode texts with a trusted engine and store the result; another process never sees half a file.

    Raises:
        EncoderError: A token id or a length is not one of the model's.
        SelfTestFailed: The model gives no finite vector.
    """
    if any(not 1 <= len(text) <= max_tokens or min(text) < 0 or max(text) >= vocabulary for text in texts):
        raise EncoderError("The golden ids do not fit the model's vocabulary and length.")
    vectors = _unit_vectors(engine, texts)
    stored = [base64.b64encode(row.astype("<f4").tobytes()).decode("ascii") for row in vectors]
    content = json.dumps({"format": _FORMAT, "token_ids": [list(text) for text in texts], "vectors": stored})
    with tempfile.NamedTemporaryFile("w", dir=path.parent, prefix=path.name, delete=False, encoding="utf-8") as file:
        file.write(content)
    os.chmod(file.name, 0o644)
    os.replace(file.name, path)


def check_golden(path: Path, engine: Engine, precision: str) -> float:
    """Encode the stored texts and compare.

    Returns:
        The smallest cosine.

    Raises:
        SelfTestFailed: The file cannot be read, or a vector is not the stored one within the precision's tolerance.
    """
    try:
        golden = json.loads(path.read_text(encoding="utf-8"))
        if golden["format"] != _FORMAT:
            raise ValueError("format")
        texts = [[int(token) for token in text] for text in golden["token_ids"]]
        expected = np.stack([np.frombuffer(base64.b64decode(vector), "<f4") for vector in golden["vectors"]])
        if expected.shape != (len(texts), engine.dimensions):
            raise ValueError("shape")
    except (OSError, ValueError, KeyError, TypeError):
        raise SelfTestFailed(f"The golden file {path} cannot be used: delete it and start again.") from None
    cosine = float((_unit_vectors(engine, texts) * expected).sum(axis=1).min())
    if not cosine >= _MIN_COSINE[precision]:
        raise SelfTestFailed(
            f"The engine's vectors differ from the stored ones (cosine {cosine:.4f}, {_MIN_COSINE[precision]} needed): "
            f"delete {path} if the weights changed on purpose, else fetch the model again."
        )
    return cosine


def _unit_vectors(engine: Engine, texts: Sequence[Sequence[int]]) -> NDArray[np.float32]:
    vectors = encode_all(engine, PackedBatch.of_texts(texts))
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    if not np.isfinite(vectors).all() or not (lengths > 0).all():
        raise SelfTestFailed("The model's vectors are zero or not finite: its weights are damaged, fetch it again.")
    unit: NDArray[np.float32] = vectors / lengths
    return unit
