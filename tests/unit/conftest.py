"""Fixtures of the client's tests: a scripted server, and each client in turn."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from unit.client_flavours import AsyncFlavour, SyncFlavour
from unit.scripted_server import RunningServer, ScriptedServer


@pytest.fixture
def scripted() -> Iterator[RunningServer]:
    """A scripted server of its own for each test."""
    with RunningServer(ScriptedServer()) as server:
        yield server


@pytest.fixture(params=[SyncFlavour, AsyncFlavour], ids=["sync", "async"])
def make_client(request: pytest.FixtureRequest) -> Iterator[Callable[..., Any]]:
    """Makes clients of one flavour and closes them."""
    flavour = request.param()
    yield flavour.client
    flavour.close()


@pytest.fixture
def client(make_client: Callable[..., Any], scripted: RunningServer) -> Any:
    """A client of the scripted server."""
    return make_client(scripted.target, timeout_s=10.0)
