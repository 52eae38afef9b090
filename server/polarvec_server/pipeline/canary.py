"""Proves by real inference that the encoder works, because Triton says "ready" even when its Python stub is dead."""

from __future__ import annotations

import asyncio
import base64
import json
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import structlog
from numpy.typing import NDArray

from polarvec_server.errors import ConfigError, Overloaded, PolarvecServerError
from polarvec_server.pipeline.values import Encoder, Pack

_log = structlog.get_logger(__name__)
_RETRY_S = 0.1
# The loosest of the encoder's own tolerances at load (fp8); a wrong model or a broken one is far below.
_MIN_COSINE = 0.98


@dataclass(frozen=True, slots=True)
class CanaryPack:
    """A short text and the vector that it must give: the first entry of the model's golden file."""

    pack: Pack
    vector: NDArray[np.float32]

    @classmethod
    def read(cls, golden_path: Path) -> CanaryPack:
        """Reads a golden file. Raises ConfigError if it cannot be read."""
        try:
            golden = json.loads(golden_path.read_text())
            ids = np.array(golden["token_ids"][0], np.int32)
            vector = np.frombuffer(base64.b64decode(golden["vectors"][0]), "<f4")
        except (OSError, ValueError, KeyError, IndexError, TypeError) as error:
            raise ConfigError(f"{golden_path} is not a golden file; delete it and start again.") from error
        return cls(Pack(ids, np.array([ids.size], np.int32), np.zeros(1, np.int64)), vector)

    def matches(self, vectors: NDArray[np.float32]) -> bool:
        """Tells whether (1, D) pooled vectors are, within the tolerance of any precision, the stored one."""
        cosine = float(vectors[0] @ self.vector) / (
            float(np.linalg.norm(vectors[0])) * float(np.linalg.norm(self.vector))
        )
        return cosine >= _MIN_COSINE


class Canary:
    """Watches one model from one worker."""

    def __init__(
        self,
        encoder: Encoder,
        canary_pack: CanaryPack,
        *,
        interval_s: float,
        timeout_s: float,
        last_answer: Callable[[], float],
        on_change: Callable[[bool], Awaitable[None]],
        on_seconds: Callable[[float], None],
    ) -> None:
        """Keeps what it works with.

        Args:
            encoder: The model.
            canary_pack: What is sent.
            interval_s: Between two canaries; calls that the encoder answers meanwhile count as canaries.
            timeout_s: Without any answer the encoder counts as down.
            last_answer: When the encoder last answered a call, on the clock of time.monotonic.
            on_change: Awaited with True or False when the encoder comes up or goes down.
            on_seconds: Told how long a canary took.
        """
        self._encoder, self._pack = encoder, canary_pack
        self._interval_s, self._timeout_s = interval_s, timeout_s
        self._last_answer, self._on_change, self._on_seconds = last_answer, on_change, on_seconds
        self._alarm = asyncio.Event()
        self.up = False
        self.down_since = time.monotonic()

    def alarm(self) -> None:
        """A call saw the encoder die: look now."""
        self._alarm.set()

    async def run(self) -> None:
        """Watches until cancelled."""
        while True:
            alarmed = self._alarm.is_set()
            self._alarm.clear()
            if alarmed:
                await self._set(False)
            idle = time.monotonic() - self._last_answer() > self._interval_s
            if not self.up or idle:
                await self._set(await self._probe())
            try:
                async with asyncio.timeout(self._interval_s if self.up else _RETRY_S):
                    await self._alarm.wait()
            except TimeoutError:
                pass

    async def _probe(self) -> bool:
        started = time.monotonic()
        # Shielded: a cancellation must not reach Triton.
        call = asyncio.ensure_future(self._encoder.encode(self._pack.pack))
        call.add_done_callback(lambda task: task.cancelled() or task.exception())
        while True:
            alarm = asyncio.ensure_future(self._alarm.wait())
            try:
                await asyncio.wait({call, alarm}, timeout=0.5, return_when=asyncio.FIRST_COMPLETED)
            finally:
                alarm.cancel()
            if call.done():
                break
            if self._alarm.is_set() or time.monotonic() - max(started, self._last_answer()) > self._timeout_s:
                return False
        try:
            vectors = call.result()
        except Overloaded:
            # Triton's queue is full: it works.
            return True
        except PolarvecServerError:
            return False
        self._on_seconds(time.monotonic() - started)
        if not self._pack.matches(vectors):
            _log.critical("the encoder gives another vector for the golden text than at import")
            return False
        return True

    async def _set(self, up: bool) -> None:
        if up == self.up:
            return
        self.up = up
        self.down_since = time.monotonic()
        await self._on_change(up)
