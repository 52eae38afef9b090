"""LlamaIndex's `BaseEmbedding` on a Polarvec server: the extra `polarvec[llama-index]`.

from polarvec.llama_index import PolarvecEmbedding

index = VectorStoreIndex.from_documents(documents, embed_model=PolarvecEmbedding(target="localhost:50051"))
"""

from __future__ import annotations

from typing import Any

from polarvec._adapter_clients import AdapterClients, row, rows
from polarvec._extras import extra
from polarvec._targets import DEFAULT_TARGET
from polarvec._tls import Tls
from polarvec._types import Truncation, VectorOptions

with extra("llama-index", "llama_index"):
    from llama_index.core.base.embeddings.base import BaseEmbedding
    from llama_index.core.bridge.pydantic import Field, PrivateAttr, SecretStr

__all__ = ["PolarvecEmbedding"]


class PolarvecEmbedding(BaseEmbedding):
    """Queries and texts with the model's own prompts; may raise a PolarvecError, which is the SDK's."""

    target: str | list[str] = Field(default=DEFAULT_TARGET, description="host:port of a server, or of several.")
    model_name: str = Field(default="", description="A model id; the server's default if empty.")
    # The SDK cuts the batches that the server wants; this is only how many texts LlamaIndex hands over at once.
    embed_batch_size: int = Field(default=512, description="Texts that LlamaIndex hands over at once.", gt=0, le=2048)
    dimensions: int = Field(default=0, description="Leading dimensions to keep; 0 means all.", ge=0)
    truncation: Truncation = Field(
        default="error", description="What happens to a text that is too long: error, end or start."
    )
    # Kept out of to_dict, so that a stored index never holds a key.
    api_key: SecretStr | None = Field(default=None, description="Sent as a bearer token.", exclude=True)
    tls: Tls | None = Field(default=None, description="Encrypts; plain text if None.", exclude=True)
    timeout_s: float = Field(default=30.0, description="Seconds that one gRPC call may take.", gt=0)

    _clients: AdapterClients = PrivateAttr()

    def __init__(self, target: str | list[str] = DEFAULT_TARGET, **options: Any) -> None:
        """Connects to nothing yet.

        Args:
            target: host:port of a server, or of several.
            **options: The fields of this class and of BaseEmbedding.

        Raises:
            TypeError: An option is none of them; pydantic alone would ignore it.
        """
        # from_dict hands over the class_name that to_dict wrote.
        if unknown := sorted(options.keys() - type(self).model_fields.keys() - {"class_name"}):
            raise TypeError(f"{type(self).__name__} has no option {', '.join(unknown)}; a model id goes as model_name")
        super().__init__(**{"target": target, **options})
        key = self.api_key.get_secret_value() if self.api_key is not None else None
        self._clients = AdapterClients(target, api_key=key, tls=self.tls, timeout_s=self.timeout_s)

    @classmethod
    def class_name(cls) -> str:
        """The name in stored configurations."""
        return "PolarvecEmbedding"

    def _get_query_embedding(self, query: str) -> list[float]:
        return row(self._clients.blocking().embed_queries(query, **self._options()))

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return row(await self._clients.of_loop().embed_queries(query, **self._options()))

    def _get_text_embedding(self, text: str) -> list[float]:
        return row(self._clients.blocking().embed_documents(text, **self._options()))

    async def _aget_text_embedding(self, text: str) -> list[float]:
        return row(await self._clients.of_loop().embed_documents(text, **self._options()))

    def _get_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        return rows(self._clients.blocking().embed_documents(texts, **self._options()))

    async def _aget_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        return rows(await self._clients.of_loop().embed_documents(texts, **self._options()))

    def _options(self) -> VectorOptions:
        return VectorOptions(model=self.model_name, dimensions=self.dimensions, truncation=self.truncation)
