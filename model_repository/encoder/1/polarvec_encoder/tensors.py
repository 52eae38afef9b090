"""Checks that Triton's stub and numpy understand each other's arrays: where they do not, answers are silently empty."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

from polarvec_encoder.errors import EncoderError


def check_tensors(tensor_class: Any, numpy_version: str = np.__version__) -> None:
    """Send a known array through Triton's tensor class and compare.

    Triton 2.51 was built with a pybind11 that misreads numpy 2's item sizes: it answers with empty tensors (seen with
    2.4.6) and makes arrays whose strides are 0. A tensor made from DLPack shows that. Under numpy 1 the check is
    needless, and that call breaks the stub.

    Args:
        tensor_class: `pb_utils.Tensor`.
        numpy_version: Of the numpy that the stub has imported.

    Raises:
        EncoderError: The array came back changed.
    """
    if int(numpy_version.split(".", 1)[0]) < 2:
        return
    sent = np.arange(1, 7, dtype=np.float32).reshape(1, 2, 3)
    try:
        received = tensor_class.from_dlpack("check", sent).as_numpy()
        whole = received.shape == sent.shape and bool((received == sent).all())
    except Exception:
        whole = False
    if not whole:
        raise EncoderError(
            f"Triton's Python backend cannot read the arrays of numpy {numpy_version} in {sys.prefix}: install numpy "
            "below 2 there, or put the right Python first on Triton's PATH."
        )
