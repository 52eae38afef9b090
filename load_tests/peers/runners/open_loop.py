"""An open loop: calls start when they are due, whatever became of the earlier ones."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

import numpy as np

DROPPED, LATE = "dropped", "no answer in time"


@dataclass(slots=True)
class Outcome:
    """What became of one call."""

    latency_ms: float | None = None
    """From the time at which it was due to its answer; None without one."""
    problem: str = ""
    vectors: np.ndarray | None = None


async def drive(
    due_s: Sequence[float],
    call: Callable[[int], Awaitable[np.ndarray]],
    *,
    max_open: int,
    timeout_s: float,
    expected_errors: tuple[type[Exception], ...],
) -> list[Outcome]:
    """Starts every call at its time and returns when the last one has ended.

    Args:
        due_s: When each call is due, in seconds from now, ascending.
        call: Makes the call of that number and returns its vectors.
        max_open: A call that is due while so many are open is dropped, and never sent.
        timeout_s: Given up so long after it was due.
        expected_errors: What a refused call raises; anything else ends the run.
    """
    loop = asyncio.get_running_loop()
    started = loop.time()
    outcomes = [Outcome() for _ in due_s]
    calls: list[asyncio.Task[None]] = []
    open_count = 0

    async def one(number: int) -> None:
        nonlocal open_count
        outcome, due = outcomes[number], started + due_s[number]
        try:
            async with asyncio.timeout_at(due + timeout_s):
                outcome.vectors = await call(number)
            outcome.latency_ms = (loop.time() - due) * 1e3
        except TimeoutError:
            outcome.problem = LATE
        except expected_errors as error:
            outcome.problem = type(error).__name__
        finally:
            open_count -= 1

    for number, due in enumerate(due_s):
        # Even when it is behind: other tasks run, and ended ones count no more.
        await asyncio.sleep(max(0.0, started + due - loop.time()))
        if open_count >= max_open:
            outcomes[number].problem = DROPPED
            continue
        open_count += 1
        calls.append(asyncio.create_task(one(number)))
    # Those that ended long ago, too: one of them may have raised what was not expected.
    await asyncio.gather(*calls)
    return outcomes
