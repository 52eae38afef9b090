"""A program ends, whatever it leaves behind: gRPC's threads are frozen by then, and may hold any lock."""

from __future__ import annotations

import subprocess
import sys

import pytest
from unit.scripted_server import RunningServer

STREAM = """
import sys, polarvec
client = polarvec.Client(sys.argv[1])
items = client.embed_stream((str(number) for number in range(100_000)), input_type="document")
next(items)
"""
LEFT_BEHIND = {
    "a stream": STREAM,
    "a stream of a closed client": STREAM + "client.close()",
    "a stream in an exception": STREAM + "for item in items: raise SystemExit(0)",
    "hedged calls": """
import signal, sys, polarvec
client = polarvec.Client(sys.argv[1], hedge_after_s=0.001)
client.embed(["a"], input_type="document")
signal.signal(signal.SIGALRM, lambda *_: sys.exit(0))
signal.setitimer(signal.ITIMER_REAL, 0.03)
while True:
    client.embed([str(number) for number in range(400)], input_type="document")
""",
    "an asynchronous stream": """
import asyncio, sys, polarvec
async def main():
    client = polarvec.AsyncClient(sys.argv[1])
    async for item in client.embed_stream((str(number) for number in range(100_000)), input_type="document"):
        sys.exit(0)
asyncio.run(main())
""",
}


@pytest.mark.parametrize("program", LEFT_BEHIND.values(), ids=LEFT_BEHIND)
def test_a_program_ends(scripted: RunningServer, program: str) -> None:
    # Before the client ended them itself, one run in three with a stream hung, and one in forty with hedged calls.
    for _ in range(8):
        done = subprocess.run(
            [sys.executable, "-c", program, scripted.target], capture_output=True, text=True, timeout=60, check=False
        )
        assert (done.returncode, done.stderr) == (0, "")
