"""Asks the encoder package, in a process of its own, whether it can run a model here, and how."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tokenizers import Tokenizer

from polarvec_server.errors import ConfigError, PolarvecServerError
from polarvec_server.models.folder import ModelFolder, ModelFolderError

# Encoded at every start of the encoder and compared with what they gave when the model came here.
_GOLDEN_TEXTS = ("query: 데비안 배포판은 누가 만드나요?", "The quick brown fox jumps over the lazy dog, 2 times.")
_REFUSED = 2
_CHOICE_REFUSED = 3
_TIMEOUT_S = 600


class InspectionError(PolarvecServerError):
    """The encoder package did not answer."""


@dataclass(frozen=True, slots=True)
class Inspection:
    """How the encoder will run a model.

    Attributes:
        engine: What computes.
        precision: The number format of the computation.
        gelu: The form of GELU.
        gpu_count: GPUs that the engine may use; 0 for a CPU engine, and for another machine.
        why: Why these, in words.
        details: Everything that the encoder said.
    """

    engine: str
    precision: str
    gelu: str
    gpu_count: int
    why: str
    details: Mapping[str, object]


def inspect(
    folder: ModelFolder,
    engine: str,
    precision: str,
    encoder_source: Path,
    golden_path: Path | None = None,
    threads: int = 0,
    *,
    gelu: str = "auto",
    elsewhere: bool = False,
) -> Inspection:
    """Checks config.json and every weight's name and shape, and picks engine and precision.

    Args:
        folder: The model.
        engine: "auto" or one engine.
        precision: "auto" or one number format.
        encoder_source: The encoder's folder, see `repository.encoder_source`.
        golden_path: Where the golden vectors are or shall be; made if missing (a few seconds). None makes none.
        threads: Threads for making them; 0 means as many as this process may use.
        gelu: "auto" or one form of GELU.
        elsewhere: Another machine will run it, so what this one can compute does not matter.

    Raises:
        ModelFolderError: The encoder refuses the model.
        ConfigError: The encoder refuses the engine or the precision.
        InspectionError: The encoder package cannot be run.
    """
    command = [sys.executable, "-m", "polarvec_encoder", "inspect", "--model", str(folder.encoder_path)]
    command += ["--engine", engine, "--precision", precision, "--pooling", folder.pooling, "--threads", str(threads)]
    command += ["--gelu", gelu, *(["--elsewhere"] if elsewhere else [])]
    if golden_path is not None:
        golden_path.parent.mkdir(parents=True, exist_ok=True)
        command += ["--golden", str(golden_path)]
        if not golden_path.exists():
            # Only then, because the tokenizer costs this process some 350 MB that it does not get back.
            command += ["--golden-ids", _golden_ids(folder)]
    environment = dict(os.environ) | {"PYTHONPATH": str(encoder_source / "1"), "PYTHONUTF8": "1"}
    try:
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, encoding="utf-8", timeout=_TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired:
        raise InspectionError(f"The encoder took more than {_TIMEOUT_S} s to look at {folder.id}.") from None
    complaint = done.stderr.strip().rsplit("\n", 1)[-1]
    if done.returncode == _CHOICE_REFUSED:
        form = "" if gelu == "auto" else f" with POLARVEC_GELU={gelu}"
        asked = f"POLARVEC_ENGINE={engine} and POLARVEC_PRECISION={precision}{form}"
        raise ConfigError(f"{asked} do not go here. {complaint}")
    if done.returncode == _REFUSED:
        raise ModelFolderError(folder.path, complaint)
    if done.returncode != 0:
        raise InspectionError(f"The encoder could not look at {folder.id}: {complaint or done.returncode}")
    return _answer(done.stdout, folder)


def _answer(output: str, folder: ModelFolder) -> Inspection:
    try:
        details = json.loads(output.strip().rsplit("\n", 1)[-1])
        inspection = Inspection(
            str(details["engine"]),
            str(details["precision"]),
            str(details["gelu"]),
            int(details["gpus"]),
            str(details["why"]),
            details,
        )
        dimensions = details["dimensions"]
    except (ValueError, KeyError, TypeError):
        raise InspectionError(f"The encoder's answer about {folder.id} cannot be read.") from None
    if dimensions != folder.dimensions:
        raise ModelFolderError(folder.path, f"the encoder finds {dimensions} dimensions, not {folder.dimensions}.")
    return inspection


def _golden_ids(folder: ModelFolder) -> str:
    try:
        tokenizer = Tokenizer.from_file(str(folder.tokenizer_file))
    except Exception as error:  # tokenizers raises bare Exception
        raise ModelFolderError(folder.path, f"tokenizer.json cannot be used ({error}).") from error
    tokenizer.no_padding()
    tokenizer.enable_truncation(min(64, folder.max_tokens))
    return ";".join(",".join(map(str, tokenizer.encode(text).ids)) for text in _GOLDEN_TEXTS)
