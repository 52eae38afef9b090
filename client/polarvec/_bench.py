"""A small load on a running server: as fast as it answers (closed loop) or at a rate that does not wait (open)."""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field

import numpy as np

from polarvec._async_client import AsyncClient
from polarvec._errors import PolarvecError
from polarvec._types import InputType

# A connection ends at one of the server's processes; several reach all of them.
_CONNECTIONS = 8

SAMPLE_TEXTS = (
    "대한민국의 수도는 어디인가?",
    "한글은 세종대왕이 1443년에 창제하여 1446년에 반포한 우리 고유의 문자이다.",
    "데비안 패키지를 설치하려면 어떻게 해야 하나요?",
    "벡터 검색은 질의와 문서를 같은 공간의 점으로 옮겨 가까운 것부터 보여 준다.",
    "How do I install a package without an internet connection?",
    "The mountain railway climbs 1,200 metres in less than an hour and runs all year round.",
    "Refunds are paid out to the original card within five working days.",
    "Dense retrieval finds passages that answer a question in other words than the question's own.",
)
"""Sent when the caller has no texts: 8 sentences of 8 to 40 tokens, half of them Korean."""


@dataclass(frozen=True, slots=True)
class Load:
    """What is sent."""

    texts: Sequence[str]
    """Sent in turn, over and over."""
    input_type: InputType
    model: str
    batch_size: int
    """Texts a call."""
    seconds: float
    concurrency: int
    """Closed loop: calls under way at any time. Open loop: not used."""
    rate_per_s: float | None
    """Open loop: calls begun in a second, at random moments (Poisson); None means a closed loop."""


@dataclass(slots=True)
class Findings:
    """What came back."""

    load: Load
    latencies_ms: list[float] = field(default_factory=list)
    """Of every call that succeeded; in an open loop from the moment when it was due."""
    token_count: int = 0
    errors: Counter[str] = field(default_factory=Counter)
    """Failed calls by the name of their error."""
    elapsed_s: float = 0.0

    @property
    def calls_per_s(self) -> float:
        """Calls that succeeded in a second."""
        return len(self.latencies_ms) / self.elapsed_s

    @property
    def texts_per_s(self) -> float:
        """Texts that came back as vectors in a second."""
        return self.calls_per_s * self.load.batch_size

    @property
    def tokens_per_s(self) -> float:
        """Their tokens, prompts and special tokens included."""
        return self.token_count / self.elapsed_s

    def percentile_ms(self, percent: float) -> float | None:
        """The latency that `percent` of the calls stay under; None if no call succeeded."""
        return float(np.percentile(self.latencies_ms, percent)) if self.latencies_ms else None


async def run(load: Load, connect: Callable[[], AsyncClient]) -> Findings:
    """Sends the load and waits for the last answer; one call on each connection goes ahead, uncounted.

    Args:
        load: What is sent.
        connect: Makes a client.

    Raises:
        PolarvecError: A call that goes ahead failed.
    """
    findings = Findings(load)
    async with _clients(_CONNECTIONS, connect) as clients:
        first = list(itertools.islice(itertools.cycle(load.texts), load.batch_size))
        await asyncio.gather(*(_send(client, load, first) for client in clients))
        calls = _calls(clients, findings)
        started = time.perf_counter()
        if load.rate_per_s is None:
            await _closed_loop(calls, load, started)
        else:
            await _open_loop(calls, load.rate_per_s, load.seconds, started)
        findings.elapsed_s = time.perf_counter() - started
    return findings


_Call = Callable[[float], Coroutine[None, None, None]]


async def _closed_loop(calls: Iterator[_Call], load: Load, started: float) -> None:
    """Each of the callers sends its next call when the last one has been answered."""

    async def caller() -> None:
        while (now := time.perf_counter()) - started < load.seconds:
            await next(calls)(now)

    async with asyncio.TaskGroup() as group:
        for _ in range(load.concurrency):
            group.create_task(caller())


async def _open_loop(calls: Iterator[_Call], rate_per_s: float, seconds: float, started: float) -> None:
    """Calls begin when they are due, however many are still under way; a late beginning counts as latency."""
    due = started
    async with asyncio.TaskGroup() as group:
        while True:
            due += random.expovariate(rate_per_s)
            if due - started >= seconds:
                return
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            group.create_task(next(calls)(due))


def _calls(clients: Sequence[AsyncClient], findings: Findings) -> Iterator[_Call]:
    """One call after the other, over the clients and the texts in turn."""
    load, texts = findings.load, itertools.cycle(findings.load.texts)
    for client in itertools.cycle(clients):
        batch = list(itertools.islice(texts, load.batch_size))

        async def call(due: float, client: AsyncClient = client, batch: list[str] = batch) -> None:
            try:
                token_count = await _send(client, load, batch)
            except PolarvecError as error:
                findings.errors[type(error).__name__] += 1
                await asyncio.sleep(0.01)  # A server that refuses at once must not be asked in a tight circle.
            else:
                findings.latencies_ms.append((time.perf_counter() - due) * 1000)
                findings.token_count += token_count

        yield call


async def _send(client: AsyncClient, load: Load, texts: Sequence[str]) -> int:
    """One call; gives its tokens."""
    result = await client.embed_detailed(list(texts), input_type=load.input_type, model=load.model, truncation="end")
    return sum(result.token_counts)


@asynccontextmanager
async def _clients(count: int, connect: Callable[[], AsyncClient]) -> AsyncIterator[list[AsyncClient]]:
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(connect()) for _ in range(count)]
