"""grpc.health.v1 and the answer of /readyz, driven by canary inferences."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from grpc_health.v1 import health_pb2
from grpc_health.v1._async import HealthServicer

SERVICE_NAME = "polarvec.v1.EmbeddingService"
# text-embeddings-inference says so of these: the first two need no encoder, the last two no model here has.
_TEI_EMBED, _TEI_WITHOUT_ENCODER = "tei.v1.Embed", ("tei.v1.Info", "tei.v1.Tokenize")
_TEI_REFUSED = ("tei.v1.Predict", "tei.v1.Rerank")
_SERVING = health_pb2.HealthCheckResponse.SERVING
_NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


class Health:
    """The health of one worker: of the process (""), of each service, and of each model, the default one first."""

    def __init__(self, model_ids: Sequence[str]) -> None:
        self.servicer = HealthServicer()
        self._up = dict.fromkeys(model_ids, False)
        self._draining = False
        self._became_ready = asyncio.Event()

    @property
    def ready(self) -> bool:
        """Whether every model serves."""
        return not self._draining and all(self._up.values())

    async def publish(self) -> None:
        """Tells the health service what is known."""
        for name in ("", SERVICE_NAME):
            await self.servicer.set(name, _SERVING if self.ready else _NOT_SERVING)
        default_up = next(iter(self._up.values()))
        answers = {
            **self._up,
            _TEI_EMBED: default_up,
            **dict.fromkeys(_TEI_WITHOUT_ENCODER, True),
            **dict.fromkeys(_TEI_REFUSED, False),
        }
        for name, up in answers.items():
            await self.servicer.set(name, _SERVING if up and not self._draining else _NOT_SERVING)

    async def set_model(self, model_id: str, up: bool) -> None:
        """Notes that a model came up or went down."""
        self._up[model_id] = up
        await self.publish()
        if self.ready:
            self._became_ready.set()

    async def wait_ready(self) -> None:
        """Returns when every model has served once."""
        await self._became_ready.wait()

    async def drain(self) -> None:
        """Says NOT_SERVING for everything from now on."""
        self._draining = True
        await self.publish()
