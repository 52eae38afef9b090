"""The HTTP doors' sockets."""

import asyncio
import socket

import pytest
from polarvec_server.edge.http_server import HttpServer
from server_process import free_port
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route


@pytest.fixture
async def door():
    async def answer(_):
        return PlainTextResponse("here")

    server = HttpServer(Starlette(routes=[Route("/", answer)]), "127.0.0.1", free_port(), drain_s=1)
    serving = asyncio.create_task(server.run_until_stopped())
    await server.listening.wait()
    yield server
    server.should_exit = True
    await serving


async def test_answers_do_not_wait_for_the_callers_acknowledgements(door):
    """Nagle's algorithm costs 40 ms a call where an answer goes out in two pieces, as uvicorn's do."""
    port = door.servers[0].sockets[0].getsockname()[1]
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    assert (await reader.readline()).startswith(b"HTTP/1.1 200")
    (connection,) = door.server_state.connections
    accepted = connection.transport.get_extra_info("socket")
    assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
    writer.close()
    await writer.wait_closed()


async def test_workers_share_the_port(door):
    port = door.servers[0].sockets[0].getsockname()[1]
    beside = HttpServer(Starlette(), "127.0.0.1", port, drain_s=1)
    serving = asyncio.create_task(beside.run_until_stopped())
    await asyncio.wait_for(beside.listening.wait(), 10)
    beside.should_exit = True
    await serving
