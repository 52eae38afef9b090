"""From Triton's parameters to an engine that is checked, warm and proven by its golden vectors."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from polarvec_encoder.architecture import POOLINGS, Architecture, Pooling, read_architecture
from polarvec_encoder.batch import PackedBatch
from polarvec_encoder.choice import Choice, choose
from polarvec_encoder.engine import Engine, encode_all
from polarvec_encoder.errors import EncoderError, ModelRefused, SelfTestFailed
from polarvec_encoder.golden import check_golden
from polarvec_encoder.hardware import read_hardware

# Past so many threads one forward pass gains little from more; two side by side do.
_THREADS_A_STREAM = 8


@dataclass(frozen=True, slots=True)
class EncoderSettings:
    """What config.pbtxt says about one model."""

    model_path: Path
    golden_path: Path | None
    engine: str
    precision: str
    pooling: Pooling
    gelu: str
    threads: int
    """Of a CPU engine; 0 means as many as the container and the scheduler allow."""
    streams: int
    """Groups that a CPU engine computes side by side; 0 means one for every 8 threads."""
    cache_dir: Path | None
    """Where an engine keeps converted weights; None keeps none."""
    dimensions: int
    max_tokens: int

    @classmethod
    def from_parameters(cls, parameters: Mapping[str, str]) -> EncoderSettings:
        """Read the `parameters` of config.pbtxt.

        Raises:
            EncoderError: One is missing or malformed.
        """
        golden, cache_dir = parameters.get("golden_path", ""), parameters.get("cache_dir", "")
        return cls(
            model_path=Path(_text(parameters, "model_path")),
            golden_path=Path(golden) if golden else None,
            engine=_text(parameters, "engine"),
            precision=_text(parameters, "precision"),
            pooling=read_pooling(_text(parameters, "pooling")),
            gelu=_text(parameters, "gelu"),
            threads=_integer(parameters, "threads", least=0),
            streams=_integer(parameters, "streams", least=0),
            cache_dir=Path(cache_dir) if cache_dir else None,
            dimensions=_integer(parameters, "dimensions", least=1),
            max_tokens=_integer(parameters, "max_tokens", least=1),
        )


@dataclass(frozen=True, slots=True)
class LoadedEncoder:
    """An engine that may serve."""

    engine: Engine
    architecture: Architecture
    max_tokens: int
    report: str
    """One line for the log."""


def load(settings: EncoderSettings, device: str = "cuda") -> LoadedEncoder:
    """Build the engine, warm it up and let it prove itself.

    Args:
        settings: What config.pbtxt says.
        device: The GPU, should the engine be `cuda`: "cuda:1" is the second.

    Raises:
        EncoderError: The model, the engine or the self-test refuses; the text says what to do.
    """
    architecture = read_architecture(settings.model_path)
    if settings.dimensions != architecture.hidden or settings.max_tokens > architecture.max_tokens:
        raise ModelRefused(
            f"The model in {settings.model_path} has {architecture.hidden} dimensions and {architecture.max_tokens} "
            f"tokens, but config.pbtxt says {settings.dimensions} and {settings.max_tokens}: start the server again."
        )
    hardware = read_hardware()
    choice = choose(settings.engine, settings.precision, hardware, settings.gelu)
    engine = build_engine(
        settings.model_path,
        architecture,
        settings.pooling,
        choice,
        settings.threads or hardware.threads,
        streams=settings.streams,
        cache_dir=settings.cache_dir,
        device=device,
    )
    _warm_up(engine, settings.max_tokens)
    proof = "no golden file"
    if settings.golden_path is not None:
        proof = f"golden cosine {check_golden(settings.golden_path, engine, choice.precision):.6f}"
    report = f"{architecture.name} on {engine.description} ({choice.why}), {proof}"
    return LoadedEncoder(engine, architecture, settings.max_tokens, report)


def build_engine(
    folder: Path,
    architecture: Architecture,
    pooling: Pooling,
    choice: Choice,
    threads: int,
    *,
    streams: int = 0,
    cache_dir: Path | None = None,
    device: str = "cuda",
) -> Engine:
    """Make the engine of a choice; its libraries are imported here and nowhere earlier.

    Args:
        folder: The model folder.
        architecture: What its config.json says.
        pooling: How token vectors become one.
        choice: What to make.
        threads: Of a CPU engine.
        streams: Of a CPU engine; 0 means one for every 8 threads.
        cache_dir: Where the engine keeps converted weights; None keeps none.
        device: Of the engine `cuda`.

    Raises:
        ModelRefused: The tensors do not fit.
        EncoderError: The engine's library is not installed, or the GPU cannot be used.
    """
    try:
        if choice.engine == "null":
            from polarvec_encoder.engine_null import NullEngine

            return NullEngine(architecture)
        if choice.engine == "torch":
            from polarvec_encoder.engine_torch import TorchEngine

            return TorchEngine(folder, architecture, pooling, threads)
        if choice.engine == "cuda":
            return _cuda_engine(folder, architecture, pooling, choice, device)
        from polarvec_encoder.engine_openvino import OpenVinoEngine

        streams = streams or max(1, threads // _THREADS_A_STREAM)
        return OpenVinoEngine(folder, architecture, pooling, choice.precision, threads, streams, cache_dir)
    except ModuleNotFoundError as error:
        name = error.name or "a library"
        raise EncoderError(f"The engine {choice.engine} needs the package {name}, which is not installed.") from None


def _cuda_engine(folder: Path, architecture: Architecture, pooling: Pooling, choice: Choice, device: str) -> Engine:
    from polarvec_encoder.cuda.engine import CudaEngine

    try:
        return CudaEngine(folder, architecture, pooling, choice.precision, choice.gelu, device)
    except subprocess.CalledProcessError as error:
        raise EncoderError(
            f"The engine cuda could not start on {device}: the C compiler of the Triton language failed (exit code "
            f"{error.returncode}): install gcc and the headers of Python (python3-dev)."
        ) from error
    except Exception as error:
        # torch raises RuntimeError for a GPU without room or one that is gone; its first line says which. The Triton
        # language has a tree of its own, which is known by its package, for there may be none of it here.
        of_triton = any(kind.__module__.partition(".")[0] == "triton" for kind in type(error).__mro__)
        if not of_triton and not isinstance(error, RuntimeError):
            raise
        reason = str(error).strip().split("\n", 1)[0]
        reason = f"{type(error).__name__}: {reason}" if of_triton else reason
        raise EncoderError(f"The engine cuda could not start on {device}: {reason}") from error


def read_pooling(name: str) -> Pooling:
    """Check a pooling's name.

    Raises:
        EncoderError: There is no such pooling.
    """
    for pooling in POOLINGS:
        if pooling == name:
            return pooling
    raise EncoderError(f"There is no pooling {name!r}: choose {', '.join(POOLINGS)}.")


def _warm_up(engine: Engine, max_tokens: int) -> None:
    """Run the shapes that occur most, so that the first callers do not wait for OpenVINO to make their kernels."""
    for lengths in ([16], [32], [48], [64], [96], [128], [256], [512], [128] * 8):
        counts = np.minimum(np.array(lengths, np.int32), max_tokens)
        vectors = encode_all(engine, PackedBatch(np.zeros(int(counts.sum()), np.int32), counts))
        if not np.isfinite(vectors).all():
            raise SelfTestFailed(
                "The model's vectors are not finite: its weights are damaged, fetch it again, or too large for the "
                "precision, choose bf16 or f32."
            )
    engine.settle()


def _text(parameters: Mapping[str, str], key: str) -> str:
    value = parameters.get(key, "")
    if not value:
        raise EncoderError(f"config.pbtxt has no parameter {key}: let polarvec-server write the model repository.")
    return value


def _integer(parameters: Mapping[str, str], key: str, least: int) -> int:
    value = _text(parameters, key)
    if not value.isascii() or not value.isdigit() or int(value) < least:
        raise EncoderError(
            f"The parameter {key} in config.pbtxt must be a whole number of at least {least}, not {value!r}."
        )
    return int(value)
