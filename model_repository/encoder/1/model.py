"""The Triton adapter: takes packs from Triton, hands them to the worker, and sends each answer when it is done."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils
from numpy.typing import NDArray

# Triton puts the version folder on the path of its own stub; other hosts of the Python backend may not.
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

from polarvec_encoder.batch import read_pack
from polarvec_encoder.errors import EncoderError, RequestRefused
from polarvec_encoder.job import Job
from polarvec_encoder.loading import EncoderSettings, load
from polarvec_encoder.tensors import check_tensors
from polarvec_encoder.worker import make_worker

# The supervisor shows its user what stands behind this mark.
_REFUSAL_MARK = "polarvec:"


class TritonPythonModel:
    """What the Python backend calls; the names and signatures are Triton's."""

    def initialize(self, args: dict[str, str]) -> None:
        """Load the model; Triton reports it ready when this returns."""
        try:
            check_tensors(pb_utils.Tensor)
            parameters = json.loads(args["model_config"])["parameters"]
            settings = EncoderSettings.from_parameters(
                {key: value["string_value"] for key, value in parameters.items()}
            )
            self._encoder = load(settings, _device(args))
        except EncoderError as error:
            pb_utils.Logger.log_error(f"{_REFUSAL_MARK} {error}")
            raise pb_utils.TritonModelException("the encoder refused to start, its reason stands in the log") from None
        pb_utils.Logger.log_info(f"{args['model_name']}: {self._encoder.report}")
        self._worker = make_worker(self._encoder.engine, pb_utils.Logger.log_error)

    def execute(self, requests: Sequence[Any]) -> None:
        """Copy a batch out of Triton's memory and hand it over; the answers follow from the worker's thread."""
        jobs = []
        for request in requests:
            sender = request.get_response_sender()
            try:
                jobs.append(self._read(request, sender))
            except RequestRefused as error:
                _send_error(sender, pb_utils.TritonError.INVALID_ARG, str(error))
        self._worker.submit(jobs)

    def finalize(self) -> None:
        """Answer what was taken, then end."""
        self._worker.close()

    def _read(self, request: Any, sender: Any) -> Job:
        token_ids, lengths, tag = (_input(request, name) for name in ("token_ids", "lengths", "tag"))
        pack = read_pack(token_ids, lengths, self._encoder.architecture.vocabulary, self._encoder.max_tokens)
        # Triton frees its inputs when execute() returns.
        answer = partial(_send_vectors, sender, tag.copy())
        return Job(pack, answer, partial(_send_error, sender, pb_utils.TritonError.INTERNAL))


def _device(args: dict[str, str]) -> str:
    """Name the GPU that Triton gave this instance; every instance is a process of its own."""
    return f"cuda:{args['model_instance_device_id']}" if args.get("model_instance_kind") == "GPU" else "cuda"


def _input(request: Any, name: str) -> NDArray[Any]:
    array: NDArray[Any] = pb_utils.get_input_tensor_by_name(request, name).as_numpy()
    return array


def _send_vectors(sender: Any, tag: NDArray[np.int64], vectors: NDArray[np.float32]) -> None:
    outputs = [pb_utils.Tensor("embeddings", vectors[None]), pb_utils.Tensor("tag", tag)]
    _send(sender, pb_utils.InferenceResponse(output_tensors=outputs))


def _send_error(sender: Any, code: Any, text: str) -> None:
    _send(sender, pb_utils.InferenceResponse(error=pb_utils.TritonError(text, code)))


def _send(sender: Any, response: Any) -> None:
    sender.send(response, flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)
