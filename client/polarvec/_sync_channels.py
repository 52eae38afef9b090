"""The blocking client's channels: one for each endpoint, opened at the first call to it."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import grpc

from polarvec._channel import ChannelSettings, Rpc, closed_during_call


class SyncChannels:
    """Opens and closes channels; safe to use from several threads."""

    def __init__(self, settings: ChannelSettings) -> None:
        """Opens nothing yet."""
        self._settings: Final = settings
        self._lock = threading.Lock()
        self._channels: dict[int, grpc.Channel] = {}
        self._methods: dict[tuple[int, str], Any] = {}
        self.closed = False
        # At the interpreter's exit, too: closing waits for a thread of gRPC's, which is frozen later.
        self._end: Final = weakref.finalize(self, _close_all, self._channels)

    def method(self, endpoint: int, rpc: Rpc[Any, Any]) -> Any:
        """What calls a unary RPC at an endpoint.

        Raises:
            RuntimeError: The client is closed.
        """
        # Made once each: it takes longer than the lookup, and every call needs one.
        method = self._methods.get((endpoint, rpc.path))
        if method is None or self.closed:
            method = self.open(endpoint).unary_unary(rpc.path, rpc.serialize, rpc.parse)
            self._methods[endpoint, rpc.path] = method
        return method

    def open(self, endpoint: int) -> grpc.Channel:
        """The channel to an endpoint.

        Raises:
            RuntimeError: The client is closed.
        """
        with self._lock:
            if self.closed:
                raise RuntimeError("this client is closed; make a new one")
            if endpoint not in self._channels:
                target, options = self._settings.endpoints[endpoint], self._settings.options
                credentials = self._settings.credentials
                self._channels[endpoint] = (
                    grpc.insecure_channel(target, options=options)
                    if credentials is None
                    else grpc.secure_channel(target, credentials, options=options)
                )
            return self._channels[endpoint]

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Around a call: what gRPC raises because another thread closes the client becomes one error.

        Raises:
            RuntimeError: The client was closed.
        """
        try:
            yield
        except (grpc.RpcError, ValueError) as error:  # ValueError: the channel was closed before the call began.
            if self.closed:
                raise closed_during_call() from error
            raise

    def close(self) -> None:
        """Ends all connections; calls under way end with an error."""
        with self._lock:
            self.closed = True
            self._methods.clear()
        self._end()


def _close_all(channels: dict[int, grpc.Channel]) -> None:
    for channel in list(channels.values()):
        channel.close()
    channels.clear()
