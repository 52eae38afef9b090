"""The asyncio client's channels: one for each endpoint, opened at the first call to it."""

from __future__ import annotations

import asyncio
from typing import Any, Final

import grpc
import grpc.aio

from polarvec._channel import ChannelSettings, Rpc


class AsyncChannels:
    """Opens and closes channels; bound to the event loop of the first call."""

    def __init__(self, settings: ChannelSettings) -> None:
        """Opens nothing yet."""
        self._settings: Final = settings
        self._loop: asyncio.AbstractEventLoop | None = None
        self._channels: dict[int, grpc.aio.Channel] = {}
        self._methods: dict[tuple[int, str], Any] = {}
        self.closed = False

    def method(self, endpoint: int, rpc: Rpc[Any, Any]) -> Any:
        """What calls a unary RPC at an endpoint.

        Raises:
            RuntimeError: The client is closed, or belongs to another event loop.
        """
        channel = self.open(endpoint)
        # Made once each: it takes longer than the lookup, and every call needs one.
        method = self._methods.get((endpoint, rpc.path))
        if method is None:
            method = channel.unary_unary(rpc.path, rpc.serialize, rpc.parse)
            self._methods[endpoint, rpc.path] = method
        return method

    def open(self, endpoint: int) -> grpc.aio.Channel:
        """The channel to an endpoint.

        Raises:
            RuntimeError: The client is closed, or belongs to another event loop.
        """
        if self.closed:
            raise RuntimeError("this client is closed; make a new one")
        loop = asyncio.get_running_loop()
        self._loop = self._loop or loop
        if self._loop is not loop:
            raise RuntimeError("this client belongs to another event loop; make one client for each loop")
        if endpoint not in self._channels:
            target, options = self._settings.endpoints[endpoint], self._settings.options
            credentials = self._settings.credentials
            self._channels[endpoint] = (
                grpc.aio.insecure_channel(target, options=options)
                if credentials is None
                else grpc.aio.secure_channel(target, credentials, options=options)
            )
        return self._channels[endpoint]

    async def close(self) -> None:
        """Ends all connections; calls under way end with an error."""
        self.closed = True
        channels = list(self._channels.values())
        self._channels.clear()
        self._methods.clear()
        for channel in channels:
            await channel.close()
