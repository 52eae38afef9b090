"""Which engine and precision run a model here, and why: the answer to "auto", and the refusal of what cannot be."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass

from polarvec_encoder.errors import ChoiceRefused
from polarvec_encoder.gpu import LEAST_CAPABILITY, GpuFinding, find_gpus
from polarvec_encoder.hardware import Hardware

PRECISIONS = ("f32", "bf16", "fp16", "int8", "fp8")
GELUS = ("erf", "tanh")
# What each engine computes in.
_ENGINE_PRECISIONS = {
    "openvino": ("f32", "bf16", "int8"),
    "cuda": ("f32", "bf16", "fp16", "fp8"),
    "torch": ("f32",),
    # Never chosen by "auto".
    "null": ("f32",),
}
# What each engine imports; `gpu` looks after those of cuda.
_PACKAGES = {"openvino": ("openvino",), "torch": ("torch", "transformers"), "cuda": (), "null": ()}


@dataclass(frozen=True, slots=True)
class Choice:
    """An engine and a precision that can run on this machine."""

    engine: str
    precision: str
    why: str
    """One sentence for the start-up log."""
    gelu: str = "erf"
    """Form of GELU: exact by the error function, or the tanh approximation that cuBLASLt fuses into its products."""
    gpu_count: int = 0
    """GPUs that the engine may use."""


def choose(
    engine: str,
    precision: str,
    hardware: Hardware,
    gelu: str = "auto",
    look_for_gpus: Callable[[], GpuFinding] = find_gpus,
) -> Choice:
    """Resolve "auto" and check everything else.

    Args:
        engine: "auto" or an engine.
        precision: "auto" or a precision.
        hardware: What this machine's CPU offers.
        gelu: "auto", "erf" or "tanh".
        look_for_gpus: Called only where the answer matters: a broken GPU must not hold up a CPU engine.

    Raises:
        ChoiceRefused: A name is unknown, a package is missing, or this machine cannot compute it.
    """
    _check_names(engine, precision, gelu)
    chosen, picked, finding = _engine(engine, precision, look_for_gpus)
    _check_pair(chosen, precision)
    for package in _PACKAGES[chosen]:
        if importlib.util.find_spec(package) is None:
            raise ChoiceRefused(f"The engine {chosen} needs the package {package}, which is not installed.")
    if precision == "auto":
        resolved, reason = _automatic(chosen, hardware)
    else:
        _check_precision(precision, hardware, finding)
        resolved, reason = precision, "as asked"
    form = _gelu(gelu, chosen, resolved)
    why = f"{chosen}: {picked}; {resolved}: {reason}" + (f"; gelu {form}" if form != "erf" else "")
    return Choice(chosen, resolved, why, form, len(finding.gpus) if finding else 0)


def choose_for_elsewhere(engine: str, precision: str, gelu: str = "auto") -> Choice:
    """Check a choice for another machine, by its names alone; that machine checks the rest when it loads the model.

    Raises:
        ChoiceRefused: Something is left to "auto", or the names do not go together.
    """
    _check_names(engine, precision, gelu)
    if "auto" in (engine, precision):
        raise ChoiceRefused("For another machine engine and precision must be named: auto would decide by this one.")
    _check_pair(engine, precision)
    why = f"{engine} and {precision}: as asked, for another machine"
    return Choice(engine, precision, why, _gelu(gelu, engine, precision))


def _check_names(engine: str, precision: str, gelu: str) -> None:
    for kind, name, known in (
        ("engine", engine, tuple(_ENGINE_PRECISIONS)),
        ("precision", precision, PRECISIONS),
        ("gelu", gelu, GELUS),
    ):
        if name not in ("auto", *known):
            raise ChoiceRefused(f"There is no {kind} {name!r}: choose {_listed(('auto', *known))}.")


def _check_pair(engine: str, precision: str) -> None:
    if precision not in ("auto", *_ENGINE_PRECISIONS[engine]):
        raise ChoiceRefused(
            f"The engine {engine} does not compute in {precision}: "
            f"choose precision {_listed(_ENGINE_PRECISIONS[engine])}."
        )


def _engine(engine: str, precision: str, look_for_gpus: Callable[[], GpuFinding]) -> tuple[str, str, GpuFinding | None]:
    """Pick the engine, say why, and what was found of GPUs if it computes there."""
    if engine == "null":
        return engine, "as asked, vectors without meaning for tests of load", None
    if engine in ("openvino", "torch"):
        return engine, "as asked", None
    if engine == "auto" and precision not in ("auto", *_ENGINE_PRECISIONS["cuda"]):
        return "openvino", f"the engine that computes in {precision}", None
    finding = look_for_gpus()
    if not finding.obstacle:
        return "cuda", f"{finding} is here" if engine == "auto" else "as asked", finding
    if engine == "cuda":
        raise ChoiceRefused(
            f"The engine cuda cannot run here, because {finding.obstacle}: mend that, or choose engine openvino."
        )
    if precision not in ("auto", *_ENGINE_PRECISIONS["openvino"]):
        raise ChoiceRefused(
            f"The precision {precision} needs the engine cuda, which cannot run here, because {finding.obstacle}: "
            "mend that, or choose another precision."
        )
    return "openvino", f"taken, because {finding.obstacle}", None


def _check_precision(precision: str, hardware: Hardware, finding: GpuFinding | None) -> None:
    if finding:
        if finding.capability < LEAST_CAPABILITY[precision]:
            raise ChoiceRefused(f"This GPU ({finding}) cannot compute in {precision}: choose precision bf16.")
    elif precision == "bf16" and not hardware.bf16:
        # OpenVINO would run in f32 without a word, and the fingerprint would name the wrong embedding space.
        raise ChoiceRefused(
            "This CPU has neither AMX nor AVX512_BF16, so it cannot compute in bf16: choose precision f32."
        )
    elif precision == "int8" and not hardware.int8:
        raise ChoiceRefused(
            "This CPU has neither AVX512_VNNI, AVX_VNNI nor AMX_INT8, so int8 would gain nothing: choose precision f32."
        )


def _automatic(engine: str, hardware: Hardware) -> tuple[str, str]:
    if engine in ("torch", "null"):
        return "f32", "the only precision of this engine"
    if engine == "cuda":
        return "bf16", "the default on a GPU"
    # Never int8 by itself: it is another embedding space, which somebody has to want.
    if hardware.bf16:
        return "bf16", f"the CPU has {hardware.bf16}"
    return "f32", "the CPU has neither amx_bf16 nor avx512_bf16"


def _gelu(gelu: str, engine: str, precision: str) -> str:
    if engine != "cuda":
        if gelu == "tanh":
            raise ChoiceRefused(f"The engine {engine} computes the exact GELU only: choose gelu erf or auto.")
        return "erf"
    if gelu == "auto":
        # They differ by 4.1e-4 at most, less than bf16 rounds results of 0.1 and more.
        return "erf" if precision == "f32" else "tanh"
    return gelu


def _listed(names: tuple[str, ...]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} or {names[-1]}"
