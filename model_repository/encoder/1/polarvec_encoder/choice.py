"""Which engine and precision run a model here, and why: the answer to "auto", and the refusal of what cannot be."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass

from polarvec_encoder.errors import ChoiceRefused
from polarvec_encoder.hardware import Hardware

# What each engine computes in, the default first.
_PRECISIONS = {"openvino": ("f32", "bf16"), "torch": ("f32",)}
# What each engine imports.
_PACKAGES = {"openvino": ("openvino",), "torch": ("torch", "transformers")}
_PLANNED_ENGINES = ("cuda",)
_PLANNED_PRECISIONS = ("int8",)


@dataclass(frozen=True, slots=True)
class Choice:
    """An engine and a precision that can run on this machine."""

    engine: str
    precision: str
    why: str
    """One sentence for the start-up log."""


def choose(engine: str, precision: str, hardware: Hardware) -> Choice:
    """Resolve "auto" and check everything else.

    Args:
        engine: "auto", "openvino" or "torch".
        precision: "auto", "f32" or "bf16".
        hardware: What this machine offers.

    Raises:
        ChoiceRefused: The engine or precision is unknown, not built yet, not installed, or not for this CPU.
    """
    if engine in _PLANNED_ENGINES or precision in _PLANNED_PRECISIONS:
        wanted = f"engine {engine}" if engine in _PLANNED_ENGINES else f"precision {precision}"
        raise ChoiceRefused(
            f"The {wanted} is not built yet: choose engine openvino or torch and precision f32 or bf16."
        )
    chosen = "openvino" if engine == "auto" else engine
    if chosen not in _PRECISIONS:
        raise ChoiceRefused(f"There is no engine {engine!r}: choose auto, openvino or torch.")
    if precision not in ("auto", "f32", "bf16"):
        raise ChoiceRefused(f"There is no precision {precision!r}: choose auto, f32 or bf16.")
    for package in _PACKAGES[chosen]:
        if importlib.util.find_spec(package) is None:
            raise ChoiceRefused(f"The engine {chosen} needs the package {package}, which is not installed.")
    picked = "the CPU engine" if engine == "auto" else "as asked"
    if precision == "auto":
        resolved, reason = _automatic(chosen, hardware)
        return Choice(chosen, resolved, f"{chosen}: {picked}; {resolved}: {reason}")
    if precision not in _PRECISIONS[chosen]:
        raise ChoiceRefused(f"The engine {chosen} computes in f32 only: choose precision f32 or engine openvino.")
    if precision == "bf16" and not hardware.bf16:
        # OpenVINO would run in f32 without a word, and the fingerprint would name the wrong embedding space.
        raise ChoiceRefused(
            "This CPU has neither AMX nor AVX512_BF16, so it cannot compute in bf16: choose precision f32."
        )
    return Choice(chosen, precision, f"{chosen}: {picked}; {precision}: as asked")


def _automatic(engine: str, hardware: Hardware) -> tuple[str, str]:
    if "bf16" not in _PRECISIONS[engine]:
        return "f32", "the only precision of this engine"
    if hardware.bf16:
        return "bf16", f"the CPU has {hardware.bf16}"
    return "f32", "the CPU has neither amx_bf16 nor avx512_bf16"
