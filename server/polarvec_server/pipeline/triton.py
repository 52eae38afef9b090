"""Carries packs to Triton and pooled vectors back; the only file that knows Triton's protocol and its errors."""

from __future__ import annotations

import itertools
import random
import struct
from collections.abc import Sequence

import grpc
import numpy as np
import structlog
from numpy.typing import NDArray
from tritonclient.grpc import service_pb2, service_pb2_grpc

from polarvec_server.errors import EncoderDied, InternalError, NonFinite
from polarvec_server.pipeline.values import Pack

# The tensors of model_repository/encoder/config.pbtxt; a contract test compares.
INPUTS = {"token_ids": "INT32", "lengths": "INT32", "tag": "INT64"}
OUTPUTS = {"embeddings": "FP32", "tag": "INT64"}

_log = structlog.get_logger(__name__)
_CHANNEL_OPTIONS = [
    ("grpc.max_receive_message_length", 256 << 20),
    ("grpc.max_send_message_length", 256 << 20),
    # A restarted tritonserver is back within a second; the default backoff would sleep up to two minutes.
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.min_reconnect_backoff_ms", 50),
    ("grpc.max_reconnect_backoff_ms", 500),
    # Each worker and model has a connection of its own.
    ("grpc.use_local_subchannel_pool", 1),
]


class TritonEncoder:
    """One model of a tritonserver, for packs."""

    def __init__(self, target: str, triton_name: str, dimensions: int) -> None:
        """Keeps what it works with.

        Args:
            target: gRPC address, such as unix:/run/triton/grpc:0.
            triton_name: The model's name in the model repository.
            dimensions: D, held against what comes back.
        """
        self._name, self._dimensions = triton_name, dimensions
        self._channel = grpc.aio.insecure_channel(target, options=_CHANNEL_OPTIONS)
        self._stub = service_pb2_grpc.GRPCInferenceServiceStub(self._channel)  # type: ignore[no-untyped-call]
        # Random start: a tag of another worker, or of a life before a restart, does not match by chance.
        self._tags = itertools.count(random.getrandbits(62))

    async def encode(self, pack: Pack) -> NDArray[np.float32]:
        """Computes the pooled vectors of a pack.

        No gRPC deadline and no cancellation goes along, because both can abort a Triton of before 25.06
        (server issues 7368, 8034, 8220); no priority and no `timeout`, because of docs/decisions/0012.

        Returns:
            (n, D) float32, finite, in the order of the pack.

        Raises:
            EncoderDied: The connection, tritonserver or its stub went away.
            NonFinite: A number is NaN or infinite.
            InternalError: Triton refused the request, or answered another one.
        """
        tag = next(self._tags) & 0x7FFF_FFFF_FFFF_FFFF
        try:
            response = await self._stub.ModelInfer(self._request(pack, tag))
        except grpc.aio.AioRpcError as error:
            raise self._translate(error) from error
        return self._read(response, pack, tag)

    async def live(self, timeout_s: float) -> bool:
        """Tells whether tritonserver itself answers; says nothing about the model."""
        try:
            answer = await self._stub.ServerLive(service_pb2.ServerLiveRequest(), timeout=timeout_s)
        except grpc.aio.AioRpcError:
            return False
        return bool(answer.live)

    async def close(self) -> None:
        """Closes the connection."""
        await self._channel.close()

    def _request(self, pack: Pack, tag: int) -> service_pb2.ModelInferRequest:
        """Builds the request by hand: InferInput objects cost several times as much."""
        request = service_pb2.ModelInferRequest(model_name=self._name)
        shapes: Sequence[list[int]] = ([1, pack.token_count], [1, pack.lengths.size], [1, 1])
        for (name, datatype), shape in zip(INPUTS.items(), shapes, strict=True):
            request.inputs.add(name=name, datatype=datatype, shape=shape)
        contents = (pack.token_ids.tobytes(), pack.lengths.tobytes(), struct.pack("<q", tag))
        request.raw_input_contents.extend(contents)
        return request

    def _read(self, response: service_pb2.ModelInferResponse, pack: Pack, tag: int) -> NDArray[np.float32]:
        raw = {output.name: data for output, data in zip(response.outputs, response.raw_output_contents, strict=True)}
        expected_bytes = pack.lengths.size * self._dimensions * 4
        if raw.get("tag") != struct.pack("<q", tag) or len(raw.get("embeddings", b"")) != expected_bytes:
            _log.critical("the encoder answered another pack than the one asked", model=self._name)
            raise InternalError
        vectors = np.frombuffer(raw["embeddings"], "<f4").reshape(-1, self._dimensions)
        if not np.isfinite(vectors).all():
            _log.error(
                "the encoder produced numbers that are not finite", model=self._name, texts=int(pack.lengths.size)
            )
            raise NonFinite
        return vectors

    def _translate(self, error: grpc.aio.AioRpcError) -> Exception:
        """Maps by code and message; none of Triton's texts leaves here."""
        code, text = error.code(), error.details() or ""
        if code is grpc.StatusCode.UNAVAILABLE or "Stub process" in text or "unhealthy" in text:
            _log.debug("the encoder is away", model=self._name, code=code.name, detail=text[:300])
            return EncoderDied()
        _log.error("triton refused a pack", model=self._name, code=code.name, detail=text[:300])
        return InternalError()
