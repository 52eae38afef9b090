"""LangChain's `Embeddings` on a Polarvec server: the extra `polarvec[langchain]`.

from polarvec.langchain import PolarvecEmbeddings

store = InMemoryVectorStore(PolarvecEmbeddings("localhost:50051"))
"""

from __future__ import annotations

from polarvec._adapter_clients import AdapterClients, row, rows
from polarvec._extras import extra
from polarvec._targets import DEFAULT_TARGET
from polarvec._tls import Tls
from polarvec._types import Truncation, VectorOptions

with extra("langchain", "langchain_core"):
    from langchain_core.embeddings import Embeddings

__all__ = ["PolarvecEmbeddings"]


class PolarvecEmbeddings(Embeddings):
    """Queries and documents with the model's own prompts; may raise a PolarvecError, which is the SDK's."""

    def __init__(
        self,
        target: str | list[str] = DEFAULT_TARGET,
        *,
        model: str = "",
        dimensions: int = 0,
        truncation: Truncation = "error",
        api_key: str | None = None,
        tls: Tls | None = None,
        timeout_s: float = 30.0,
    ) -> None:
        """Connects to nothing yet.

        Args:
            target: host:port of a server, or of several.
            model: A model id; the server's default if empty.
            dimensions: Leading dimensions to keep; 0 means all.
            truncation: What happens to a text that is too long: "error" refuses it, "end" or "start" cuts there.
            api_key: Sent as a bearer token.
            tls: Encrypts the connection; plain text if None.
            timeout_s: Seconds that one gRPC call may take.
        """
        self._clients = AdapterClients(target, api_key=api_key, tls=tls, timeout_s=timeout_s)
        self._options = VectorOptions(model=model, dimensions=dimensions, truncation=truncation)

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """One vector of D numbers a text, unit length."""
        if not texts:
            return []
        return rows(self._clients.blocking().embed_documents(texts, **self._options))

    def embed_query(self, text: str) -> list[float]:
        """D numbers, unit length."""
        return row(self._clients.blocking().embed_queries(text, **self._options))

    async def aembed_documents(self, texts: list[str]) -> list[list[float]]:
        """One vector of D numbers a text, unit length."""
        if not texts:
            return []
        return rows(await self._clients.of_loop().embed_documents(texts, **self._options))

    async def aembed_query(self, text: str) -> list[float]:
        """D numbers, unit length."""
        return row(await self._clients.of_loop().embed_queries(text, **self._options))

    def close(self) -> None:
        """Ends the connection of the blocking calls."""
        self._clients.close()

    async def aclose(self) -> None:
        """Ends the connection of the running event loop."""
        await self._clients.aclose()
