"""The HTTP doors' sockets."""

import asyncio
import contextlib
import socket

import pytest
from polarvec_server.edge import http_server
from polarvec_server.edge.http_server import HttpServer
from server_process import free_port
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route


@pytest.fixture
async def door():
    async def answer(_):
        return PlainTextResponse("here")

    async def answer_slowly(_):
        await asyncio.sleep(0.3)
        return PlainTextResponse("slow")

    async def answer_at_length(_):
        return PlainTextResponse(b"x" * (32 << 20))

    routes = [Route("/", answer), Route("/large", answer_at_length), Route("/slow", answer_slowly)]
    server = HttpServer(Starlette(routes=routes), "127.0.0.1", free_port(), drain_s=1)
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


PARTS = {
    "nothing": b"",
    "half of a header": b"GET / HTTP/1.1\r\nHo",
    "one request and no other": b"GET / HTTP/1.1\r\nHost: x\r\n\r\nGET",
    "a body that nobody waits for": b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nabc",
}


@pytest.mark.parametrize("sent", PARTS.values(), ids=PARTS)
async def test_a_connection_on_which_no_request_comes_is_closed(monkeypatch, door, sent):
    monkeypatch.setattr(http_server, "_PATIENCE_S", 0.1)
    reader, writer = await asyncio.open_connection("127.0.0.1", door.servers[0].sockets[0].getsockname()[1])
    writer.write(sent)
    with contextlib.suppress(ConnectionResetError):
        await asyncio.wait_for(reader.read(), 10)
        writer.close()
        await writer.wait_closed()
    assert not door.server_state.connections


async def test_a_caller_who_does_not_take_his_answer_is_not_kept(monkeypatch, door):
    monkeypatch.setattr(http_server, "_PATIENCE_S", 0.1)
    with socket.create_connection(door.servers[0].sockets[0].getsockname()) as caller:
        caller.sendall(b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n")
        async with asyncio.timeout(10):
            while not door.server_state.connections:
                await asyncio.sleep(0.01)
            while door.server_state.connections:
                await asyncio.sleep(0.01)


async def test_a_connection_in_use_stays(monkeypatch, door):
    monkeypatch.setattr(http_server, "_PATIENCE_S", 0.2)
    reader, writer = await asyncio.open_connection("127.0.0.1", door.servers[0].sockets[0].getsockname()[1])
    for _ in range(8):
        writer.write(b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n")
        assert (await reader.readuntil(b"slow")).startswith(b"HTTP/1.1 200")
    writer.close()
    await writer.wait_closed()
