"""The queue of one worker: decides which pack goes to Triton next, and keeps only a small window on its way.

Order: interactive before bulk; within a level start-time fair queueing (Goyal, Vin, Cheng, 1996) weighted by tokens,
so that calls take turns and one huge call starves nobody; between equals the earlier deadline.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import math
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import structlog
from numpy.typing import NDArray

from polarvec_server.errors import DeadlineExceeded, EncoderDied, EncoderUnavailable, InternalError, RequestError
from polarvec_server.pipeline.values import Encoder, Pack, Priority, Timings

_log = structlog.get_logger(__name__)
# A pack is sent again once after the encoder died under it: embedding has no side effects. Not more often, because
# a pack that kills the encoder would do so for ever.
_MAX_ATTEMPTS = 2
# The rate is measured over about the last seconds of work.
_RATE_MEMORY_S = 5.0
# A fast encoder fills its rows better the more packs it has to choose from; what is on its way takes no turns any more,
# so a slow one gets fewer.
_WINDOW_S = 0.6


@dataclass(slots=True, eq=False)
class _Job:
    """The packs of one call."""

    priority: Priority
    deadline: float
    waiting: deque[tuple[Pack, int]]
    results: list[tuple[Pack, NDArray[np.float32]]]
    remaining: int
    done: asyncio.Future[None]
    virtual_time: float = 0.0
    queued_at: float = field(default_factory=time.monotonic)
    first_sent_at: float = math.nan

    def expire(self) -> None:
        self.fail(DeadlineExceeded())

    def fail(self, error: RequestError) -> None:
        self.waiting.clear()
        if not self.done.done():
            self.done.set_exception(error)


@dataclass(slots=True)
class Encoded:
    """What has come back from the encoder since somebody last counted."""

    packs: int = 0
    texts: int = 0
    tokens: int = 0


class Dispatcher:
    """Sends the packs of all calls of one worker and one model through a window of tokens."""

    def __init__(self, encoders: Mapping[Priority, Encoder], window_tokens: int, max_window_tokens: int = 0) -> None:
        """Starts with nothing queued.

        Args:
            encoders: What takes the packs of each level.
            window_tokens: Tokens on their way at once.
            max_window_tokens: For an encoder that computes more than `window_tokens` in 0.6 s: as many as it computes
                in that time, but no more than these. 0 means never more.
        """
        self.encoded = Encoded()
        self._encoders = encoders
        self._window, self._max_window = window_tokens, max(window_tokens, max_window_tokens)
        self._queues: dict[Priority, list[tuple[float, float, int, _Job]]] = {level: [] for level in Priority}
        self._clocks = dict.fromkeys(Priority, 0.0)
        self._order = itertools.count()
        self._on_their_way: set[asyncio.Future[NDArray[np.float32]]] = set()
        self._jobs: set[_Job] = set()
        self._in_flight = dict.fromkeys(Priority, 0)
        self._idle = asyncio.Event()
        self._idle.set()
        self._last_completion = 0.0
        self._done_tokens = 0.0
        self._busy_s = 0.0
        self._available = False
        self._refusing = True
        self._on_death: Callable[[], None] = lambda: None

    def when_encoder_dies(self, on_death: Callable[[], None]) -> None:
        """Registers what is called when a pack finds the encoder gone."""
        self._on_death = on_death

    @property
    def last_answer(self) -> float:
        """When a pack last came back, on the clock of `time.monotonic`."""
        return self._last_completion

    def tokens_per_s(self) -> float | None:
        """The encoder's measured rate; None until a first pack came back."""
        return self._done_tokens / self._busy_s if self._busy_s > 0 else None

    @property
    def in_flight_tokens(self) -> int:
        """Tokens on their way in Triton."""
        return sum(self._in_flight.values())

    def _window_now(self) -> float:
        rate = self.tokens_per_s() or 0.0
        return min(max(self._window, rate * _WINDOW_S), self._max_window)

    async def wait_idle(self) -> None:
        """Returns when nothing is on its way."""
        await self._idle.wait()

    def set_available(self, available: bool) -> None:
        """Starts or stops sending; what is queued waits."""
        self._available = available
        if available:
            self._refusing = False
            self._pump()

    def refuse_all(self) -> None:
        """Ends the wait for an encoder that stays away: fails what is queued and what comes until it is back."""
        self._refusing = True
        for job in list(self._jobs):
            job.fail(EncoderUnavailable())

    async def run(
        self, packs: Sequence[Pack], priority: Priority, deadline: float | None, timings: Timings
    ) -> list[tuple[Pack, NDArray[np.float32]]]:
        """Computes the packs of one call.

        Args:
            packs: At least one.
            priority: The level to queue in.
            deadline: On the clock of `time.monotonic`, None for none.
            timings: Queue and inference time are added here.

        Returns:
            Each pack with its (n, D) float32 pooled vectors, in no particular order.

        Raises:
            DeadlineExceeded: The deadline passed; what was not sent yet is never computed.
            EncoderUnavailable: The encoder stays away, or died twice under a pack.
        """
        if self._refusing:
            raise EncoderUnavailable
        loop = asyncio.get_running_loop()
        done = loop.create_future()
        job = _Job(
            priority, math.inf if deadline is None else deadline, deque((p, 1) for p in packs), [], len(packs), done
        )
        job.virtual_time = self._clocks[priority]
        self._jobs.add(job)
        self._push(job)
        self._pump()
        alarm = None
        if deadline is not None:
            alarm = loop.call_later(max(0.0, deadline - time.monotonic()), job.expire)
        try:
            await done
        finally:
            if alarm is not None:
                alarm.cancel()
            # Packs already sent run on (a cancellation must not reach Triton); the others are dropped.
            job.waiting.clear()
            self._jobs.discard(job)
            if done.done() and not done.cancelled():
                done.exception()
        finished = time.monotonic()
        timings.queue_ms += (job.first_sent_at - job.queued_at) * 1e3
        timings.inference_ms += (finished - job.first_sent_at) * 1e3
        return job.results

    def _push(self, job: _Job) -> None:
        heapq.heappush(self._queues[job.priority], (job.virtual_time, job.deadline, next(self._order), job))

    def _next(self) -> tuple[_Job, Pack, int] | None:
        """Takes the next pack out of the queue."""
        for level, queue in self._queues.items():
            while queue:
                job = queue[0][-1]
                if not job.waiting or job.deadline <= time.monotonic():
                    heapq.heappop(queue)
                    continue
                pack, _ = job.waiting[0]
                # Interactive packs pass bulk that is on its way: the encoder takes small packs first.
                ahead = self._in_flight[level] if level is Priority.INTERACTIVE else self.in_flight_tokens
                if ahead and ahead + pack.token_count > self._window_now():
                    return None
                heapq.heappop(queue)
                pack, attempt = job.waiting.popleft()
                self._clocks[level] = job.virtual_time
                job.virtual_time += pack.token_count
                if job.waiting:
                    self._push(job)
                return job, pack, attempt
        return None

    def _pump(self) -> None:
        while self._available and (chosen := self._next()):
            job, pack, attempt = chosen
            if math.isnan(job.first_sent_at):
                job.first_sent_at = time.monotonic()
            self._in_flight[job.priority] += pack.token_count
            self._idle.clear()
            # A task only where the encoder is a coroutine: at a thousand calls a second each costs 1 % of a core.
            vectors = asyncio.ensure_future(self._encoders[job.priority].encode(pack))
            self._on_their_way.add(vectors)
            vectors.add_done_callback(partial(self._take_back, job, pack, attempt, time.monotonic()))

    def _take_back(
        self, job: _Job, pack: Pack, attempt: int, sent_at: float, answer: asyncio.Future[NDArray[np.float32]]
    ) -> None:
        self._on_their_way.discard(answer)
        try:
            vectors = answer.result()
        except EncoderDied:
            self._available = False
            self._send_again(job, pack, attempt)
            self._on_death()
        except RequestError as error:
            job.fail(error)
        except (Exception, asyncio.CancelledError):
            # Nobody awaits this answer, so whatever else goes wrong must end the call here.
            _log.exception("a pack could not be computed")
            job.fail(InternalError())
        else:
            self._measure(pack, sent_at)
            job.results.append((pack, vectors))
            job.remaining -= 1
            if job.remaining == 0 and not job.done.done():
                job.done.set_result(None)
        finally:
            self._in_flight[job.priority] -= pack.token_count
            self._pump()
            if not self.in_flight_tokens:
                self._idle.set()

    def _send_again(self, job: _Job, pack: Pack, attempt: int) -> None:
        if attempt >= _MAX_ATTEMPTS:
            job.fail(EncoderUnavailable())
        elif not job.done.done():
            job.waiting.appendleft((pack, attempt + 1))
            if len(job.waiting) == 1:
                self._push(job)

    def _measure(self, pack: Pack, sent_at: float) -> None:
        """Counts tokens against busy time; both fade, so that the rate follows a change of the work."""
        self.encoded.packs += 1
        self.encoded.texts += pack.rows.size
        self.encoded.tokens += pack.token_count
        now = time.monotonic()
        busy_s = now - max(sent_at, self._last_completion)
        self._last_completion = now
        fade = math.exp(-busy_s / _RATE_MEMORY_S)
        self._done_tokens = self._done_tokens * fade + pack.token_count
        self._busy_s = self._busy_s * fade + busy_s
