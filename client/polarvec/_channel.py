"""How the server is reached: channel options, service config and the table of RPCs; opens nothing itself."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Generic, TypeVar

import grpc
from google.protobuf.message import Message
from polarvec_proto.v1 import embedding_pb2 as pb

from polarvec._errors import InvalidRequest
from polarvec._targets import parse_targets
from polarvec._tls import Tls, tls_credentials, tls_options

_SERVICE = "polarvec.v1.EmbeddingService"
_UNARY = ("Embed", "Rank", "Tokenize", "ListModels", "GetModel")
_CONNECT_TIMEOUT_MS = 3_000
_MAX_SEND_BYTES = 16 * 2**20
# A server keeps its answers under 16 MiB; the rest is room for one that does not.
_MAX_RECEIVE_BYTES = 64 * 2**20

RequestT = TypeVar("RequestT")
ResponseT = TypeVar("ResponseT")


@dataclass(frozen=True, slots=True)
class Rpc(Generic[RequestT, ResponseT]):
    """One RPC: where it lives and how its messages become bytes; works with grpc's and grpc.aio's channels."""

    path: str
    serialize: Callable[[RequestT], bytes]
    parse: Callable[[bytes], ResponseT]
    waits: bool = True
    """Whether a failed call may be made again after a while; one that asks how things are now may not."""


def _rpc(name: str, request: type[Message], response: Callable[[bytes], ResponseT]) -> Rpc[Message, ResponseT]:
    return Rpc(f"/{_SERVICE}/{name}", request.SerializeToString, response)


EMBED = _rpc("Embed", pb.EmbedRequest, pb.EmbedResponse.FromString)
EMBED_STREAM = _rpc("EmbedStream", pb.EmbedStreamRequest, pb.EmbedStreamResponse.FromString)
RANK = _rpc("Rank", pb.RankRequest, pb.RankResponse.FromString)
TOKENIZE = _rpc("Tokenize", pb.TokenizeRequest, pb.TokenizeResponse.FromString)
LIST_MODELS = _rpc("ListModels", pb.ListModelsRequest, pb.ListModelsResponse.FromString)
GET_MODEL = _rpc("GetModel", pb.GetModelRequest, pb.GetModelResponse.FromString)


# The messages of grpc.health.v1 are read and written here, because the package that has them would be a dependency.
HEALTH: Rpc[bytes, bytes] = Rpc("/grpc.health.v1.Health/Check", bytes, bytes, waits=False)


def health_request(service: str) -> bytes:
    """HealthCheckRequest {string service = 1}.

    Raises:
        InvalidRequest: The name is longer than any that a server has.
    """
    name = service.encode("utf-8", "replace")
    if len(name) > 127:
        raise InvalidRequest("The name of a service has at most 127 bytes; pass a model id, or nothing.")
    return b"\x0a" + bytes([len(name)]) + name if name else b""


def is_serving(response: bytes) -> bool:
    """Whether HealthCheckResponse {ServingStatus status = 1} says SERVING (1)."""
    return response == b"\x08\x01"


@dataclass(frozen=True, slots=True)
class ChannelSettings:
    """Everything that the channels of a client are made of, one for each endpoint."""

    endpoints: tuple[str, ...]
    credentials: grpc.ChannelCredentials | None
    options: tuple[tuple[str, str | int], ...]
    metadata: tuple[tuple[str, str], ...]


def channel_settings(
    target: str | Sequence[str],
    *,
    api_key: str | None,
    tls: Tls | None,
    credentials: grpc.ChannelCredentials | None,
) -> ChannelSettings:
    """Checks what the caller gave and puts the settings together.

    Raises:
        InvalidRequest: A target, the key or a certificate is malformed, or TLS is given twice.
    """
    if tls is not None and credentials is not None:
        raise InvalidRequest("tls and credentials both say how to encrypt; give one of them.")
    metadata: tuple[tuple[str, str], ...] = ()
    if tls is not None and not isinstance(tls, Tls):
        raise TypeError(f"tls is of type {type(tls).__name__}; give a polarvec.Tls")
    if api_key is not None:
        if not isinstance(api_key, str):
            raise TypeError(f"api_key is of type {type(api_key).__name__}; give a str")
        if not api_key or not api_key.isascii() or not api_key.isprintable():
            raise InvalidRequest("The API key must be printable ASCII and not empty; check where it comes from.")
        metadata = (("authorization", f"Bearer {api_key}"),)
    endpoints = parse_targets(target)
    if tls is not None:
        credentials = tls_credentials(tls)
    options = (*_options(alone=len(endpoints) == 1), *tls_options(tls))
    return ChannelSettings(endpoints, credentials, options, metadata)


def _options(*, alone: bool) -> tuple[tuple[str, str | int], ...]:
    options: tuple[tuple[str, str | int], ...] = (
        ("grpc.service_config", _service_config(retries=alone)),
        ("grpc.primary_user_agent", f"polarvec-python/{package_version()}"),
        ("grpc.max_send_message_length", _MAX_SEND_BYTES),
        ("grpc.max_receive_message_length", _MAX_RECEIVE_BYTES),
        # A dead peer is noticed after 30 + 10 s; gRPC's own default is never.
        ("grpc.keepalive_time_ms", 30_000),
        ("grpc.keepalive_timeout_ms", 10_000),
        # Reconnects as quickly as calls are retried; gRPC's own first wait of 1 s outlasts all four attempts.
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.max_reconnect_backoff_ms", 1_000),
        # Each client has a connection of its own, so that the workers behind one port share several clients.
        ("grpc.use_local_subchannel_pool", 1),
    )
    # A connection may take gRPC's 20 s to be made; among several endpoints there is another one to go to.
    return options if alone else (*options, ("grpc.min_reconnect_backoff_ms", _CONNECT_TIMEOUT_MS))


def _service_config(*, retries: bool) -> str:
    """UNAVAILABLE only, 4 attempts, 0.1 s to 1 s, doubled, with gRPC's own jitter; never RESOURCE_EXHAUSTED.

    Args:
        retries: Whether gRPC tries again by itself; among several endpoints the SDK goes to another one instead.
    """
    retry = {
        "maxAttempts": 4,
        "initialBackoff": "0.1s",
        "maxBackoff": "1s",
        "backoffMultiplier": 2,
        "retryableStatusCodes": ["UNAVAILABLE"],
    }
    # A name such as dns:/// may stand for several addresses, which take calls in turn.
    config: dict[str, object] = {"loadBalancingConfig": [{"round_robin": {}}]}
    if not retries:
        return json.dumps(config)
    config |= {
        # Not EmbedStream: StreamLedger opens a new call itself, and replays from gRPC would only stand in its way.
        "methodConfig": [{"name": [{"service": _SERVICE, "method": name} for name in _UNARY], "retryPolicy": retry}],
        # Retries stop while more than about one call in ten fails: they must not feed an outage.
        "retryThrottling": {"maxTokens": 10, "tokenRatio": 0.1},
    }
    return json.dumps(config)


def closed_during_call() -> RuntimeError:
    """What a call ends with if its client is closed before the answer comes."""
    return RuntimeError("this client was closed during the call")


def package_version() -> str:
    """This package's version, as its wheel says."""
    try:
        return version("polarvec")
    except PackageNotFoundError:
        return "unknown"
