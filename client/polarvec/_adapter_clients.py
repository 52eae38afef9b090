"""The clients behind an adapter: one for threads, and one for each event loop that calls."""

from __future__ import annotations

import asyncio
import threading
from typing import Any, Self

from polarvec._async_client import AsyncClient
from polarvec._client import Client
from polarvec._types import Matrix, Vector


class AdapterClients:
    """Makes each client when it is first needed; a copy in another process makes its own.

    Frameworks call from threads and from event loops that they start and end as they please, and an AsyncClient
    belongs to one loop.
    """

    def __init__(self, target: str | list[str], **options: Any) -> None:
        """Connects to nothing yet.

        Args:
            target: host:port of a server, or of several.
            **options: Keyword arguments of Client and AsyncClient; those that are None are left to their defaults.
        """
        self._target: Any = target
        self._options = {name: value for name, value in options.items() if value is not None}
        self._lock = threading.Lock()
        self._client: Client | None = None
        self._async_clients: dict[asyncio.AbstractEventLoop, AsyncClient] = {}

    def __reduce__(self) -> tuple[Any, ...]:
        return _again, (type(self), self._target, self._options)

    def __deepcopy__(self, _memo: object) -> Self:
        return type(self)(self._target, **self._options)

    def blocking(self) -> Client:
        """The client for threads."""
        with self._lock:
            if self._client is None:
                self._client = Client(self._target, **self._options)
            return self._client

    def of_loop(self) -> AsyncClient:
        """The client of the running event loop."""
        loop = asyncio.get_running_loop()
        with self._lock:
            # A loop that has ended cannot close its client any more; letting go of it ends the connection.
            self._async_clients = {known: kept for known, kept in self._async_clients.items() if not known.is_closed()}
            if loop not in self._async_clients:
                self._async_clients[loop] = AsyncClient(self._target, **self._options)
            return self._async_clients[loop]

    def close(self) -> None:
        """Ends the connection of the client for threads; the next call opens one again."""
        with self._lock:
            client, self._client = self._client, None
        if client is not None:
            client.close()

    async def aclose(self) -> None:
        """Ends the connection of the running loop's client; the next call opens one again."""
        with self._lock:
            client = self._async_clients.pop(asyncio.get_running_loop(), None)
        if client is not None:
            await client.close()


def _again(kind: type[AdapterClients], target: str | list[str], options: dict[str, Any]) -> AdapterClients:
    return kind(target, **options)


def row(vector: Vector) -> list[float]:
    """A vector (D,) as the frameworks want it."""
    numbers: list[float] = vector.tolist()
    return numbers


def rows(matrix: Matrix) -> list[list[float]]:
    """Vectors (N, D) as the frameworks want them."""
    numbers: list[list[float]] = matrix.tolist()
    return numbers
