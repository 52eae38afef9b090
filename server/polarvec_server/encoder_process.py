"""Keeps one tritonserver serving: starts it, proves it by inference, kills and restarts it when it lies."""

from __future__ import annotations

import asyncio
import signal
import time
import urllib.request
from collections import deque
from collections.abc import Callable, Mapping

import numpy as np
import structlog
from numpy.typing import NDArray

from polarvec_server.children import Child
from polarvec_server.errors import ConfigError, EncoderDied, Overloaded, PolarvecServerError
from polarvec_server.pipeline.canary import CanaryPack
from polarvec_server.pipeline.triton import TritonEncoder
from polarvec_server.tritonserver import EXIT_TIMEOUT_S, TritonPlan

_log = structlog.get_logger("triton")
_POLL_S = 0.05
_LIVE_TIMEOUT_S = 2.0
# So many silent ServerLive calls in a row mean that the process hangs, not that the machine is busy.
_SILENT_CALLS = 3
_FAILED_CANARIES = 3
_FIRST_BACKOFF_S, _LAST_BACKOFF_S = 0.1, 30.0
# The encoder writes the reason of a refusal behind this mark; model_repository/encoder/1/model.py.
_REFUSAL_MARK = "polarvec:"
# What Triton says on every machine without a GPU.
_NORMAL_WITHOUT_GPU = ("CUDA driver", "CudaDriverHelper", "DCGM", "NVML", "pinned memory")
_SEVERITY = {"W": "warning", "E": "error", "F": "critical"}


class EncoderProcess:
    """One tritonserver with all its models."""

    def __init__(
        self,
        plan: TritonPlan,
        canaries: Mapping[str, tuple[CanaryPack, int]],
        *,
        canary_interval_s: float,
        canary_timeout_s: float,
        on_restart: Callable[[str], None],
        gpu: bool = False,
    ) -> None:
        """Keeps what it works with.

        Args:
            plan: How it runs.
            canaries: Canary pack and dimensions of each model, by its name in the repository.
            canary_interval_s: Between two canaries.
            canary_timeout_s: Without any answer to anybody it counts as hung.
            on_restart: Told the cause of each restart: exit, stub, hang, error, wrong vector.
            gpu: Whether a model needs one; what Triton says of its absence is then no trifle.
        """
        self._gpu = gpu
        self._plan, self._canaries = plan, canaries
        self._interval_s, self._timeout_s = canary_interval_s, canary_timeout_s
        self._on_restart = on_restart
        self._last_lines: deque[str] = deque(maxlen=200)
        self._failures = 0
        self._canaries_sent: set[asyncio.Task[NDArray[np.float32]]] = set()
        self._child = self._new_child()
        self._encoders = {
            name: TritonEncoder(plan.target, name, dimensions) for name, (_, dimensions) in canaries.items()
        }

    @property
    def pid(self) -> int:
        """Process id of tritonserver."""
        return self._child.pid

    def _new_child(self) -> Child:
        return Child(self._plan.command(), self._plan.environment(), self._on_line)

    def _on_line(self, line: str) -> None:
        self._last_lines.append(line)
        # 2026-11-23T13:06:59Z E 3071 server.cc:321] "text"
        head = line.split(" ", 3)
        severity = _SEVERITY.get(head[1], "debug") if len(head) == 4 and len(head[1]) == 1 else "debug"
        if not self._gpu and any(words in line for words in _NORMAL_WITHOUT_GPU):
            severity = "debug"
        getattr(_log, severity)("tritonserver says", line=line[:2000])

    async def start(self) -> None:
        """Starts tritonserver and returns when every model has answered a canary.

        Raises:
            ConfigError: It ended before it was ready, or was not ready in time; the message holds the reason.
        """
        self._plan.clean_up()
        self._failures = 0
        self._child = self._new_child()
        await self._child.start()
        deadline = time.monotonic() + self._plan.load_timeout_s
        while not await self._answers_by(deadline):
            if self._child.ended:
                await self._child.wait()
                raise ConfigError(f"tritonserver did not start: {self._reason()}")
            if time.monotonic() > deadline:
                await self._kill()
                raise ConfigError(
                    f"the encoder was not ready after {self._plan.load_timeout_s:.0f} s (POLARVEC_LOAD_TIMEOUT_S)."
                )
            await asyncio.sleep(_POLL_S)

    async def _answers_by(self, deadline: float) -> bool:
        """Tells whether every model answers a canary rightly in time; a call that hangs is left to the kill."""
        call = asyncio.create_task(self._answers())
        call.add_done_callback(lambda task: task.cancelled() or task.exception())
        await asyncio.wait({call}, timeout=max(0.0, deadline - time.monotonic()))
        return call.done() and call.result()

    async def _answers(self) -> bool:
        """Tells whether every model answers a canary rightly."""
        if self._child.ended:
            return False
        for name, (canary, _) in self._canaries.items():
            try:
                vectors = await self._encoders[name].encode(canary.pack)
            except PolarvecServerError:
                return False
            if not canary.matches(vectors):
                return False
        return True

    def _reason(self) -> str:
        """Picks what a person needs out of Triton's last lines."""
        refusals = [line.split(_REFUSAL_MARK, 1)[1].strip() for line in self._last_lines if _REFUSAL_MARK in line]
        if refusals:
            return refusals[-1].strip('"')
        errors = [line for line in self._last_lines if " E " in line or "error" in line.lower()]
        return (errors or list(self._last_lines) or ["it wrote nothing"])[-1]

    async def keep_serving(self) -> None:
        """Watches and restarts until cancelled."""
        backoff_s = _FIRST_BACKOFF_S
        while True:
            served_since = time.monotonic()
            cause = await self._watch()
            _log.error("the encoder is lost and starts again", cause=cause, pid=self.pid)
            self._on_restart(cause)
            await self._kill()
            if time.monotonic() - served_since > _LAST_BACKOFF_S:
                backoff_s = _FIRST_BACKOFF_S
            while True:
                started = time.monotonic()
                try:
                    await self.start()
                except (ConfigError, OSError) as error:
                    _log.error("the encoder did not come back", error=str(error), next_try_s=backoff_s)
                    await asyncio.sleep(backoff_s)
                    backoff_s = min(2 * backoff_s, _LAST_BACKOFF_S)
                else:
                    _log.warning("the encoder is back", seconds=round(time.monotonic() - started, 2), pid=self.pid)
                    break

    async def _watch(self) -> str:
        """Returns the cause when the encoder is lost: exit, stub, hang, error or wrong vector."""
        exited = asyncio.create_task(self._child.wait())
        stuck = asyncio.create_task(self._watch_answers())
        try:
            await asyncio.wait({exited, stuck}, return_when=asyncio.FIRST_COMPLETED)
            return "exit" if exited.done() else stuck.result()
        finally:
            stuck.cancel()
            exited.cancel()

    async def _watch_answers(self) -> str:
        first = next(iter(self._encoders.values()))
        silent = 0
        while True:
            await asyncio.sleep(self._interval_s)
            silent = 0 if await first.live(_LIVE_TIMEOUT_S) else silent + 1
            if silent >= _SILENT_CALLS:
                return "hang"
            if silent:
                continue
            for name, (canary, _) in self._canaries.items():
                cause = await self._check(name, canary)
                if cause:
                    return cause

    async def _check(self, name: str, canary: CanaryPack) -> str:
        """Sends a canary, and more while none is answered; returns why the encoder is lost, or nothing."""
        calls, pause_s = {self._send(name, canary)}, self._interval_s
        progress, since = await self._answered_count(), time.monotonic()
        next_at, silent = since + pause_s, 0
        while True:
            answered, _ = await asyncio.wait(calls, timeout=self._interval_s, return_when=asyncio.FIRST_COMPLETED)
            if answered:
                return next(filter(None, [self._judge(call, canary) for call in answered]), "")
            silent = 0 if await self._encoders[name].live(_LIVE_TIMEOUT_S) else silent + 1
            count, now = await self._answered_count(), time.monotonic()
            if count > progress:
                progress, since = count, now
            if silent >= _SILENT_CALLS or now - since > self._timeout_s:
                return "hang"
            if now >= next_at:
                # What a stub had taken in when it stopped is never answered; what comes after that is refused.
                calls.add(self._send(name, canary))
                pause_s *= 2
                next_at = now + pause_s

    def _send(self, name: str, canary: CanaryPack) -> asyncio.Task[NDArray[np.float32]]:
        call = asyncio.create_task(self._encoders[name].encode(canary.pack))
        # Held until it ends: a call that is dropped is cancelled, and a cancellation must not reach Triton.
        self._canaries_sent.add(call)
        call.add_done_callback(self._canaries_sent.discard)
        call.add_done_callback(lambda task: task.cancelled() or task.exception())
        return call

    def _judge(self, call: asyncio.Task[NDArray[np.float32]], canary: CanaryPack) -> str:
        """Returns what an answer to a canary says: why the encoder is lost, or nothing."""
        try:
            right = canary.matches(call.result())
        except EncoderDied:
            return "stub"
        except Overloaded:
            # Triton's queue is full: it works.
            return ""
        except PolarvecServerError:
            # One failure may be one pack's; an encoder that fails every canary does not come back by itself.
            self._failures += 1
            return "error" if self._failures >= _FAILED_CANARIES else ""
        self._failures = 0
        return "" if right else "wrong vector"

    async def _answered_count(self) -> float:
        """Requests that Triton has answered, by its own counter; -1 if it does not tell."""

        def read() -> float:
            url = f"http://127.0.0.1:{self._plan.metrics_port}/metrics"
            # Past any proxy that the environment names.
            opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
            with opener.open(url, timeout=_LIVE_TIMEOUT_S) as answer:
                lines = answer.read().decode().splitlines()
            return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith("nv_inference_count{"))

        try:
            return await asyncio.to_thread(read)
        except (OSError, ValueError):
            return -1.0

    async def _kill(self) -> None:
        """Ends it at once, also when it is stopped: a stub that wakes up late would abort it anyway."""
        self._child.signal(signal.SIGKILL)
        await self._child.wait()
        self._plan.clean_up()

    def kill(self) -> None:
        """Ends it at once: somebody has no time for order."""
        self._child.signal(signal.SIGKILL)

    async def stop(self) -> None:
        """Ends it in order, and removes what it left."""
        await self._child.stop(EXIT_TIMEOUT_S + 3)
        self._plan.clean_up()
        for encoder in self._encoders.values():
            await encoder.close()
