"""One face for both clients, so that every test runs against each: the asyncio one runs in a loop of its own."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncGenerator, Callable, Iterator
from typing import Any

from polarvec import AsyncClient, Client


class SyncFlavour:
    """Calls the blocking client as it is."""

    name = "sync"

    def __init__(self) -> None:
        self._clients: list[Client] = []

    def client(self, target: str, **options: Any) -> Client:
        client = Client(target, **options)
        self._clients.append(client)
        return client

    def close(self) -> None:
        for client in self._clients:
            client.close()


class AsyncFlavour:
    """Makes the asyncio client look like the blocking one."""

    name = "async"

    def __init__(self) -> None:
        self._runner = asyncio.Runner()
        self._clients: list[AsyncClient] = []

    def client(self, target: str, **options: Any) -> BlockingFace:
        client = AsyncClient(target, **options)
        self._clients.append(client)
        return BlockingFace(client, self._runner)

    def close(self) -> None:
        for client in self._clients:
            self._runner.run(client.close())
        self._runner.close()


class BlockingFace:
    """Runs each coroutine of an AsyncClient to its end, and each async generator step by step."""

    def __init__(self, client: AsyncClient, runner: asyncio.Runner) -> None:
        self._client, self._runner = client, runner

    def __getattr__(self, name: str) -> Callable[..., Any]:
        method = getattr(self._client, name)

        def call(*args: Any, **options: Any) -> Any:
            result = method(*args, **options)
            if inspect.isasyncgen(result):
                return self._steps(result)
            return self._runner.run(_awaited(result))

        return call

    def _steps(self, items: AsyncGenerator[Any, None]) -> Iterator[Any]:
        try:
            while True:
                try:
                    item = self._runner.run(_awaited(anext(items)))
                except StopAsyncIteration:
                    return
                yield item
        finally:
            self._runner.run(_awaited(items.aclose()))


async def _awaited(awaitable: Any) -> Any:
    return await awaitable
