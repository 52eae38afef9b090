"""A bare grpc.aio server that answers every call with fixed bytes: what the transport alone costs."""

from __future__ import annotations

import asyncio
import sys

import grpc


async def serve(answer: bytes) -> None:
    """Serves on a free port of loopback until it is ended; prints the port."""

    async def echo(request: bytes, context: object) -> bytes:
        return answer

    # No serializers: bytes in, bytes out.
    handler = grpc.method_handlers_generic_handler(
        "polarvec.v1.EmbeddingService", {"Embed": grpc.unary_unary_rpc_method_handler(echo)}
    )
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((handler,))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(port, flush=True)
    await server.wait_for_termination()


if __name__ == "__main__":
    asyncio.run(serve(sys.stdin.buffer.read()))
