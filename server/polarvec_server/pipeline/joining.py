"""Joins small packs of different calls into one request to Triton: the last stage before `triton`.

A request costs the gateway, tritonserver and the encoder process about 1 ms of CPU however little is in it, a question
of 20 tokens some 0.5 ms of engine time in company. So small packs that are ready together travel together. They gather
while enough requests are on their way to keep the encoder busy, and while more of them keep coming out of a gateway
that is busy itself; a caller alone waits for nobody.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from polarvec_server.errors import EncoderDied
from polarvec_server.pipeline.values import Encoder, Pack

# The encoder lets requests up to this size overtake the others (polarvec_encoder/job.py; a contract test compares), so
# a joined one of interactive calls is no larger.
SMALL_TOKENS = 256
# What is small in bulk joins to something larger, or it would stand in the way of queries: docs/decisions/0015.
BULK_TOKENS = 2 * SMALL_TOKENS
# Where packs had company before, they leave when so many turns of the event loop have brought no other one. A turn of
# an idle loop takes some 10 µs, one of a loop that is working off calls as long as those take: docs/decisions/0014.
_QUIET_TURNS = 24
# A loop that works off bulk has long turns.
_LONGEST_GATHERING_S = 0.005

_Entry = tuple[Pack, "asyncio.Future[NDArray[np.float32]]"]


class JoiningEncoder:
    """Stands before an encoder and joins what is small; everything else passes."""

    def __init__(self, encoder: Encoder, requests_in_flight: int, request_tokens: int = SMALL_TOKENS) -> None:
        """Starts with nothing on its way.

        Args:
            encoder: Takes the requests.
            requests_in_flight: Joined requests that keep the encoder busy; while so many are on their way, small packs
                wait until they fill another one.
            request_tokens: Most tokens in a joined request; a pack above half of it gains nothing and passes.
        """
        self._encoder, self._most_in_flight, self._request_tokens = encoder, requests_in_flight, request_tokens
        self._waiting: deque[_Entry] = deque()
        self._waiting_tokens = 0
        self._in_flight = 0
        self._gathering = False
        self._quiet_turns = 0
        self._gathers_until = 0.0
        self._had_company = False
        self._tasks: set[asyncio.Task[None]] = set()

    def encode(self, pack: Pack) -> asyncio.Future[NDArray[np.float32]]:
        """Computes a pack; see `values.Encoder`. What it returns may be dropped: the pack is computed all the same."""
        if pack.token_count > self._request_tokens // 2:
            return asyncio.ensure_future(self._encoder.encode(pack))
        loop = asyncio.get_running_loop()
        vectors: asyncio.Future[NDArray[np.float32]] = loop.create_future()
        self._waiting.append((pack, vectors))
        self._waiting_tokens += pack.token_count
        self._gather()
        return vectors

    def _gather(self) -> None:
        """Sends at the end of this turn of the loop, when every call that came with it has been here, or later."""
        self._quiet_turns = 0
        if not self._gathering:
            self._gathering = True
            self._gathers_until = time.monotonic() + _LONGEST_GATHERING_S
            asyncio.get_running_loop().call_soon(self._end_turn)

    def _end_turn(self) -> None:
        self._quiet_turns += 1
        could_go = self._in_flight < self._most_in_flight and self._waiting_tokens < self._request_tokens
        quiet = self._quiet_turns >= _QUIET_TURNS or time.monotonic() >= self._gathers_until
        if could_go and self._had_company and not quiet:
            asyncio.get_running_loop().call_soon(self._end_turn)
            return
        self._gathering = False
        self._flush()

    def _flush(self) -> None:
        while self._waiting and (
            self._in_flight < self._most_in_flight or self._waiting_tokens >= self._request_tokens
        ):
            self._in_flight += 1
            task = asyncio.get_running_loop().create_task(self._send(self._take()))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def _take(self) -> list[_Entry]:
        """Takes the packs that waited longest, as many as fit together."""
        group, tokens = [self._waiting.popleft()], 0
        tokens = group[0][0].token_count
        while self._waiting and tokens + self._waiting[0][0].token_count <= self._request_tokens:
            group.append(self._waiting.popleft())
            tokens += group[-1][0].token_count
        self._waiting_tokens -= tokens
        self._had_company = len(group) > 1
        return group

    async def _send(self, group: Sequence[_Entry]) -> None:
        try:
            await self._encode(group)
        finally:
            self._in_flight -= 1
            if self._waiting:
                self._gather()

    async def _encode(self, group: Sequence[_Entry]) -> None:
        try:
            values = await self._encoder.encode(_join([pack for pack, _ in group]))
        except asyncio.CancelledError:
            # The connection was closed: whoever waits for an answer must hear of it.
            for _, vectors in group:
                vectors.cancel()
            raise
        except Exception as error:
            # One text may have spoiled it for the others. A dead encoder is no pack's fault: all are sent again above.
            if len(group) > 1 and not isinstance(error, EncoderDied):
                await asyncio.gather(*(self._encode([entry]) for entry in group))
                return
            for _, vectors in group:
                if not vectors.done():
                    vectors.set_exception(error)
            return
        start = 0
        for pack, vectors in group:
            stop = start + pack.lengths.size
            if not vectors.done():
                vectors.set_result(values[start:stop])
            start = stop


def _join(packs: Sequence[Pack]) -> Pack:
    if len(packs) == 1:
        return packs[0]
    lengths = np.concatenate([pack.lengths for pack in packs])
    # Rows are places in a call, and these are of several calls; nobody asks a joined pack for them.
    return Pack(np.concatenate([pack.token_ids for pack in packs]), lengths, np.arange(lengths.size))
