"""What container probes run: does a gateway say SERVING, does tritonserver compute the right vector."""

from __future__ import annotations

import asyncio
import http.client
import urllib.parse
from pathlib import Path

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from polarvec_server.deployment import read_deployment
from polarvec_server.errors import ConfigError, PolarvecServerError
from polarvec_server.models.folder import read_folder
from polarvec_server.pipeline.canary import CanaryPack
from polarvec_server.pipeline.triton import TritonEncoder

_GATEWAY_TIMEOUT_S = 3.0


def probe_gateway(target: str, service: str) -> None:
    """Raises ConfigError unless the gateway says that a service is SERVING.

    Args:
        target: Its gRPC address, or `http://host:port` of the operators' port, which is plain even beside TLS.
        service: Of grpc.health.v1; only with a gRPC address.
    """
    if target.startswith("http://"):
        _probe_readyz(target)
        return
    with grpc.insecure_channel(target) as channel:
        check = health_pb2_grpc.HealthStub(channel).Check  # type: ignore[attr-defined]
        try:
            answer = check(health_pb2.HealthCheckRequest(service=service), timeout=_GATEWAY_TIMEOUT_S)
        except grpc.RpcError as error:
            raise ConfigError(f"{target} does not answer ({error.code().name}).") from None
    if answer.status != health_pb2.HealthCheckResponse.SERVING:
        raise ConfigError(f"{target} is not serving.")


def _probe_readyz(url: str) -> None:
    parts = urllib.parse.urlsplit(url)
    connection = http.client.HTTPConnection(parts.netloc, timeout=_GATEWAY_TIMEOUT_S)
    try:
        connection.request("GET", "/readyz")
        status = connection.getresponse().status
    except (OSError, http.client.HTTPException) as error:
        raise ConfigError(f"{url} does not answer ({type(error).__name__}).") from None
    finally:
        connection.close()
    if status != http.client.OK:
        raise ConfigError(f"{url} is not serving.")


async def probe_encoder(deployment: Path, target: str, timeout_s: float) -> None:
    """Raises ConfigError unless every model gives its golden vector in time."""
    if not target:
        raise ConfigError("Set POLARVEC_TRITON_TARGET to tritonserver's gRPC address, such as unix:/run/triton/grpc:0.")
    for model in read_deployment(deployment):
        canary = CanaryPack.read(Path(model.golden_path))
        encoder = TritonEncoder(target, model.triton_name, read_folder(Path(model.folder)).dimensions)
        try:
            # The process ends after this, so nothing of the call outlives a time-out.
            async with asyncio.timeout(timeout_s):
                vectors = await encoder.encode(canary.pack)
        except (TimeoutError, PolarvecServerError) as error:
            raise ConfigError(f"{model.triton_name} does not answer a canary.") from error
        finally:
            await encoder.close()
        if not canary.matches(vectors):
            raise ConfigError(f"{model.triton_name} answers a canary with another vector than its golden one.")
