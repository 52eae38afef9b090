"""Writes the model repository that Triton reads: one entry a model, each with the encoder's code and its settings."""

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from polarvec_server.config import GPU_ENGINES
from polarvec_server.errors import ConfigError
from polarvec_server.models import pbtxt
from polarvec_server.models.folder import ModelFolder
from polarvec_server.models.inspection import Inspection, InspectionError, inspect

__all__ = ["EncoderConfig", "Inspection", "InspectionError", "encoder_source", "inspect", "write_repository"]


@dataclass(frozen=True, slots=True)
class EncoderConfig:
    """One entry of the model repository.

    Attributes:
        triton_name: Its name for Triton.
        folder: The model.
        engine: What computes, as `inspect` picked it.
        precision: The number format, as `inspect` picked it.
        fingerprint: Names the embedding space.
        golden_path: The golden vectors that the encoder must reproduce before it is ready.
        gelu: The form of GELU, as `inspect` picked it.
        threads: Threads of a CPU engine; 0 means as many as the encoder may use.
        streams: Groups that a CPU engine computes side by side; 0 means one for every 8 threads.
        cache_dir: Where the engine keeps converted weights; None keeps none.
        gpus: Numbers of the GPUs, one instance each; empty means one on every GPU that Triton sees.
        max_batch_packs: The most packs that Triton merges into one batch.
        queue_delay_us: How long Triton waits for a batch to fill.
    """

    triton_name: str
    folder: ModelFolder
    engine: str
    precision: str
    fingerprint: str
    golden_path: Path
    gelu: str
    threads: int
    streams: int
    cache_dir: Path | None
    gpus: tuple[int, ...]
    max_batch_packs: int
    queue_delay_us: int


def encoder_source() -> Path:
    """Returns the encoder's folder: inside the installed wheel, or in the repository that is installed editable.

    Raises:
        ConfigError: There is neither.
    """
    package = Path(__file__).resolve().parents[1]
    for place in (package / "_model_repository" / "encoder", package.parents[1] / "model_repository" / "encoder"):
        if (place / "config.pbtxt").is_file():
            return place
    raise ConfigError("The encoder's files are missing from this installation; install polarvec-server again.")


def write_repository(root: Path, models: Sequence[EncoderConfig], encoder_source: Path) -> None:
    """Writes one entry a model; entries of the same names are replaced.

    Args:
        root: The model repository; made if missing.
        models: The entries.
        encoder_source: What they are made of: config.pbtxt and the folder 1/.

    Raises:
        ConfigError: config.pbtxt lacks a setting that has to be set.
        OSError: The files cannot be written.
    """
    template = (encoder_source / "config.pbtxt").read_text(encoding="utf-8")
    root.mkdir(parents=True, exist_ok=True)
    for model in models:
        entry = root / model.triton_name
        shutil.rmtree(entry, ignore_errors=True)
        # A copy, not a link: Triton's Python writes byte code beside the sources, and a repository may be moved.
        shutil.copytree(encoder_source / "1", entry / "1", ignore=shutil.ignore_patterns("__pycache__", ".*"))
        (entry / "config.pbtxt").write_text(_config(template, model), encoding="utf-8")


def _config(template: str, model: EncoderConfig) -> str:
    text = pbtxt.without_blocks(template, ("instance_group", "parameters"))
    text = pbtxt.with_scalars(
        text,
        {
            "name": json.dumps(model.triton_name),
            "max_batch_size": model.max_batch_packs,
            "max_queue_delay_microseconds": model.queue_delay_us,
        },
    )
    text = pbtxt.with_output_dimensions(text, "embeddings", model.folder.dimensions)
    lines = [text.rstrip(), "", f"instance_group [ {{ {_instances(model)} }} ]"]
    lines += [pbtxt.parameter(key, value) for key, value in _parameters(model).items()]
    return "\n".join(lines) + "\n"


def _instances(model: EncoderConfig) -> str:
    """Returns one instance, or one on each GPU: several on one GPU would only take turns."""
    if model.engine not in GPU_ENGINES:
        return "count: 1 kind: KIND_CPU"
    # Without the list Triton starts one on every GPU that it sees.
    named = f" gpus: [ {', '.join(map(str, model.gpus))} ]" if model.gpus else ""
    return f"count: 1 kind: KIND_GPU{named}"


def _parameters(model: EncoderConfig) -> Mapping[str, str]:
    # The encoder copies its inputs out of Triton's memory anyway, so they shall not travel over the GPU.
    for_gpu = {"FORCE_CPU_ONLY_INPUT_TENSORS": "yes"} if model.engine in GPU_ENGINES else {}
    return for_gpu | {
        "model_path": str(model.folder.encoder_path.resolve()),
        "golden_path": str(model.golden_path.resolve()),
        "engine": model.engine,
        "precision": model.precision,
        "pooling": model.folder.pooling,
        "gelu": model.gelu,
        "threads": str(model.threads),
        "streams": str(model.streams),
        "cache_dir": str(model.cache_dir) if model.cache_dir else "",
        "id": model.folder.id,
        "fingerprint": model.fingerprint,
        "dimensions": str(model.folder.dimensions),
        "max_tokens": str(model.folder.max_tokens),
    }
