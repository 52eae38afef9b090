"""What the GPU engine can run where: refusals with a reason, before anything is loaded."""

from __future__ import annotations

import torch

from polarvec_encoder.architecture import Architecture
from polarvec_encoder.cuda.weights import FORMATS
from polarvec_encoder.errors import ChoiceRefused, ModelRefused
from polarvec_encoder.gpu import LEAST_CAPABILITY

_HEAD_DIMENSIONS = (16, 32, 64, 128)
# float8 products take multiples of 16 only, others are slow without 16-byte rows.
_MULTIPLE = {"f32": 8, "bf16": 8, "fp16": 8, "fp8": 16}


def check_support(architecture: Architecture, precision: str, gelu: str, device: str) -> None:
    """Refuse what would not run.

    Raises:
        ChoiceRefused: Precision, form of GELU or device.
        ModelRefused: The model's shape.
    """
    if precision not in FORMATS:
        raise ChoiceRefused(f"The engine cuda has no precision {precision!r}: choose {', '.join(FORMATS)}.")
    if gelu not in ("erf", "tanh"):
        raise ChoiceRefused(f"There is no form of GELU {gelu!r}: choose erf or tanh.")
    if torch.device(device).type == "cpu":
        return
    _check_device(precision, device)
    if architecture.head_dimensions not in _HEAD_DIMENSIONS:
        raise ModelRefused(
            f"The engine cuda runs attention heads of {', '.join(map(str, _HEAD_DIMENSIONS))} dimensions, not "
            f"{architecture.head_dimensions}: choose engine torch."
        )
    multiple = _MULTIPLE[precision]
    if architecture.hidden % multiple or architecture.intermediate % multiple:
        raise ModelRefused(
            f"The engine cuda computes {precision} where hidden_size and intermediate_size are multiples of "
            f"{multiple}: choose another precision or engine torch."
        )


def take_device(device: str) -> torch.device:
    """Resolve a bare "cuda" to a GPU of a number, and make that GPU the calling thread's current one.

    Buffers that no call names a device for, pinned memory and the start of a capture go to the current GPU.
    """
    taken = torch.device(device)
    if taken.type != "cuda":
        return taken
    if taken.index is None:
        taken = torch.device("cuda", torch.cuda.current_device())
    torch.cuda.set_device(taken)
    return taken


def _check_device(precision: str, device: str) -> None:
    if not torch.cuda.is_available():
        raise ChoiceRefused(
            "torch sees no NVIDIA GPU here: install a CUDA build of torch and check nvidia-smi, or choose engine "
            "openvino."
        )
    capability = torch.cuda.get_device_capability(device)
    if capability < LEAST_CAPABILITY[precision]:
        raise ChoiceRefused(
            f"{torch.cuda.get_device_name(device)} has compute capability {capability[0]}.{capability[1]}, and "
            f"{precision} needs {'.'.join(map(str, LEAST_CAPABILITY[precision]))}: choose another precision or engine."
        )
