"""sentence-transformers in process: its torch, OpenVINO and ONNX backends. It sorts the texts by length itself."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from protocol import Runner, serve
from sentence_transformers import SentenceTransformer


class SentenceTransformers(Runner):
    """`backend` is torch, openvino or onnx; `dtype`, `hint` and `file` choose the number format."""

    def load(self, job: dict) -> dict:
        torch.set_num_threads(job["threads"])
        backend = job["backend"]
        if backend == "torch":
            kwargs, folder = {"dtype": getattr(torch, job["dtype"])}, job["folder"]
        elif backend == "openvino":
            kwargs, folder = _openvino(job)
        else:
            kwargs, folder = _onnx(job)
        self._model = SentenceTransformer(str(folder), device="cpu", backend=backend, model_kwargs=kwargs)
        self._model.max_seq_length = job["max_tokens"]
        return {"format": self._format(backend, job)}

    def encode(self, texts: Sequence[str], batch_size: int) -> np.ndarray:
        return self._model.encode(
            list(texts), batch_size=batch_size, normalize_embeddings=True, show_progress_bar=False
        )

    def query(self, text: str) -> np.ndarray:
        return self._model.encode(text, normalize_embeddings=True, show_progress_bar=False)

    def padding(self, texts: Sequence[str], batch_size: int) -> float:
        computed = real = 0

        def count(module: torch.nn.Module, arguments: tuple) -> None:
            nonlocal computed, real
            computed += arguments[0]["attention_mask"].numel()
            real += int(arguments[0]["attention_mask"].sum())

        hook = self._model[0].register_forward_pre_hook(count)
        self.encode(texts, batch_size)
        hook.remove()
        return computed / real

    def _format(self, backend: str, job: dict) -> str:
        inner = self._model[0].auto_model
        if backend == "torch":
            return str(next(inner.parameters()).dtype).removeprefix("torch.")
        if backend == "openvino":
            compiled = inner.compiled_model if hasattr(inner, "compiled_model") else inner.request
            precision = compiled.get_property("INFERENCE_PRECISION_HINT")
            return f"{'int8 weights, ' if job.get('file') else ''}{precision.get_type_name()}"
        return "qint8, dynamic" if job.get("file") else "f32"


def _openvino(job: dict) -> tuple[dict, Path]:
    folder = Path(job["cache"])
    if not (folder / "openvino" / "openvino_model.xml").exists():
        model = SentenceTransformer(
            job["folder"], device="cpu", backend="openvino", model_kwargs={"export": True, "compile": False}
        )
        model.save_pretrained(str(folder))
    config = {"INFERENCE_NUM_THREADS": str(job["threads"])}
    if job.get("hint"):
        config["INFERENCE_PRECISION_HINT"] = job["hint"]
    kwargs: dict = {"ov_config": config}
    if job.get("file"):
        file = folder / "openvino" / job["file"]
        if not file.exists():
            _quantize_openvino(folder, file)
        kwargs["file_name"] = f"openvino/{job['file']}"
    return kwargs, folder


def _quantize_openvino(folder: Path, file: Path) -> None:
    """Weights to int8 as optimum-intel's `--weight-format int8` does; OpenVINO quantises activations by itself."""
    import nncf
    import openvino

    model = openvino.Core().read_model(folder / "openvino" / "openvino_model.xml")
    openvino.save_model(nncf.compress_weights(model, mode=nncf.CompressWeightsMode.INT8_ASYM), file)


def _onnx(job: dict) -> tuple[dict, Path]:
    import onnxruntime

    folder = Path(job["cache"])
    if not (folder / "onnx" / "model.onnx").exists():
        model = SentenceTransformer(
            job["folder"],
            device="cpu",
            backend="onnx",
            model_kwargs={"provider": "CPUExecutionProvider", "export": True},
        )
        model.save_pretrained(str(folder))
    if job.get("file") and not (folder / job["file"]).exists():
        from sentence_transformers import export_dynamic_quantized_onnx_model

        model = SentenceTransformer(
            str(folder),
            device="cpu",
            backend="onnx",
            model_kwargs={"provider": "CPUExecutionProvider", "file_name": "onnx/model.onnx"},
        )
        export_dynamic_quantized_onnx_model(model, "avx512_vnni", str(folder))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = job["threads"]
    file = job.get("file", "onnx/model.onnx")
    return {"provider": "CPUExecutionProvider", "session_options": options, "file_name": file}, folder


if __name__ == "__main__":
    os.environ["TOKENIZERS_PARALLELISM"] = "true"
    serve(SentenceTransformers())
