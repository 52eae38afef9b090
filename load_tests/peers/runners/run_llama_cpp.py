"""llama.cpp's server, prebuilt in xllamacpp, over its HTTP; the GGUF file is made once by llama.cpp's converter."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import xllamacpp
from http_client import HttpEmbeddings
from protocol import Runner, serve

_SLOTS = 32


class LlamaCpp(Runner):
    """`file_type` is f16 or q8_0."""

    def load(self, job: dict) -> dict:
        parameters = xllamacpp.CommonParams()
        parameters.model.path = str(_gguf(job))
        parameters.embedding = True
        parameters.n_parallel = _SLOTS
        parameters.n_ctx = _SLOTS * job["max_tokens"]
        # Every text must fit a micro-batch, because attention is not causal.
        parameters.n_batch = parameters.n_ubatch = 2048
        parameters.cpuparams.n_threads = parameters.cpuparams_batch.n_threads = job["threads"]
        parameters.pooling_type = getattr(xllamacpp.llama_pooling_type, f"LLAMA_POOLING_TYPE_{job['pooling'].upper()}")
        parameters.port = 0
        parameters.warmup = False
        self._server = xllamacpp.Server(parameters)
        port = int(self._server.listening_address.rsplit(":", 1)[1])
        self._client = HttpEmbeddings(port, "/v1/embeddings", "peer", job["callers"])
        self._client.wait("/health", 60)
        return {"format": job["file_type"], "address": self._client.url}

    def encode(self, texts: Sequence[str], batch_size: int) -> np.ndarray:
        return self._client.embed_all(texts, batch_size)

    def query(self, text: str) -> np.ndarray:
        return self._client.embed([text])[0]

    def padding(self, texts: Sequence[str], batch_size: int) -> float:
        return 1.0


def _gguf(job: dict) -> Path:
    file = Path(job["cache"]) / f"{job['file_type']}.gguf"
    if not file.exists():
        source = Path(sys.executable).parent.parent / "source"
        converter = next(source.glob("*/llama.cpp/convert_hf_to_gguf.py"))
        with tempfile.TemporaryDirectory() as folder:
            _as_converter_wants_it(Path(job["folder"]), Path(folder))
            command = [sys.executable, str(converter), folder, "--outtype", job["file_type"], "--outfile", str(file)]
            if subprocess.run(command, check=False, stdout=sys.stderr).returncode:
                raise RuntimeError("llama.cpp's converter does not take this model; see the log")
    return file


def _as_converter_wants_it(model: Path, folder: Path) -> None:
    """Links the model's files; a BERT with XLM-R's vocabulary is called an XLM-R without position offset.

    The converter takes every BERT to have a WordPiece vocabulary, and cuts `pad_token_id + 1` rows off XLM-R's table of
    positions unless the config says that there is no padding token.
    """
    for file in model.iterdir():
        (folder / file.name).symlink_to(file.resolve())
    config = json.loads((model / "config.json").read_text())
    if config["model_type"] == "bert":
        config |= {"architectures": ["XLMRobertaModel"], "model_type": "xlm-roberta", "pad_token_id": None}
    (folder / "config.json").unlink()
    (folder / "config.json").write_text(json.dumps(config))


if __name__ == "__main__":
    serve(LlamaCpp())
