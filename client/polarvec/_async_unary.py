"""One unary call, for asyncio: to the endpoint in turn, again where that helps, twice where the first is slow."""

from __future__ import annotations

import asyncio
import itertools
from typing import Any, Final, TypeVar

import grpc

from polarvec._async_channels import AsyncChannels
from polarvec._channel import Rpc, closed_during_call
from polarvec._context import CallContext
from polarvec._errors import PolarvecError, from_rpc_error
from polarvec._results import call_timings
from polarvec._retry import CallPolicy, Deadline, another_may_answer
from polarvec._types import CallTimings

RequestT = TypeVar("RequestT")
ResponseT = TypeVar("ResponseT")


class AsyncUnary:
    """Makes unary calls."""

    def __init__(self, channels: AsyncChannels, policy: CallPolicy) -> None:
        """Calls nothing yet."""
        self._channels: Final = channels
        self._policy: Final = policy

    async def call(
        self, rpc: Rpc[RequestT, ResponseT], request: RequestT, context: CallContext
    ) -> tuple[ResponseT, CallTimings]:
        """The answer, with further attempts where they help and the deadline and the budget allow them.

        Raises:
            PolarvecError: It failed.
            RuntimeError: The client was closed.
        """
        self._policy.book_call()
        deadline = Deadline.after(context.timeout_s)
        attempt_once = self._attempt if self._policy.hedge_after_s is None else self._hedged
        for attempt in itertools.count(1):
            try:
                return await attempt_once(rpc, request, context, deadline, self._policy.rotation.choose())
            except PolarvecError as failure:
                delay_s = self._policy.retry_delay_s(failure, attempt, deadline, waits=rpc.waits)
                if delay_s is None:
                    raise
            await asyncio.sleep(delay_s)
        raise AssertionError("count() does not end")

    async def _hedged(
        self, rpc: Rpc[Any, Any], request: Any, context: CallContext, deadline: Deadline, endpoint: int
    ) -> tuple[Any, CallTimings]:
        """The first answer of at most two calls; the other call is cancelled."""
        first = asyncio.create_task(self._attempt(rpc, request, context, deadline, endpoint))
        calls, other = {first}, endpoint
        try:
            await asyncio.wait(calls, timeout=self._policy.hedge_after_s)
            if not first.done() and self._policy.may_hedge():
                other = self._policy.rotation.choose(avoid=endpoint)
                calls.add(asyncio.create_task(self._attempt(rpc, request, context, deadline, other)))
            while True:
                done, _ = await asyncio.wait(calls, return_when=asyncio.FIRST_COMPLETED)
                call = done.pop()
                calls.discard(call)
                try:
                    answer = call.result()
                    if first in calls:  # One that failed has been booked.
                        self._policy.book_overtaken(endpoint, by=other)
                    return answer
                except PolarvecError as failure:
                    if not calls or not another_may_answer(failure):
                        raise
        finally:
            for call in calls:
                call.cancel()
            await asyncio.gather(*calls, return_exceptions=True)

    async def _attempt(
        self, rpc: Rpc[Any, Any], request: Any, context: CallContext, deadline: Deadline, endpoint: int
    ) -> tuple[Any, CallTimings]:
        """One attempt; what became of it is booked for its endpoint."""
        method = self._channels.method(endpoint, rpc)
        call = method(request, timeout=deadline.remaining_s(), metadata=context.metadata)
        try:
            response, timings = await call, call_timings(await call.trailing_metadata())
        except grpc.RpcError as error:
            failure = from_rpc_error(error)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if self._channels.closed and task is not None and not task.cancelling():
                raise closed_during_call() from None
            raise
        else:
            self._policy.rotation.answered(endpoint)
            return response, timings
        self._policy.book_failure(endpoint, failure)
        raise failure
