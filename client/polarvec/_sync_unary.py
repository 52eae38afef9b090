"""One unary call, blocking: to the endpoint in turn, again where that helps, twice where the first is slow."""

from __future__ import annotations

import itertools
import queue
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final, Generic, TypeVar

import grpc

from polarvec._channel import Rpc
from polarvec._context import CallContext
from polarvec._errors import PolarvecError, from_rpc_error
from polarvec._results import call_timings
from polarvec._retry import CallPolicy, Deadline, another_may_answer
from polarvec._sync_channels import SyncChannels
from polarvec._types import CallTimings

RequestT = TypeVar("RequestT")
ResponseT = TypeVar("ResponseT")


@dataclass(frozen=True, slots=True)
class Flight(Generic[RequestT, ResponseT]):
    """A call that has its turn; `begun` is its first attempt, or None if that is still to be made."""

    rpc: Rpc[RequestT, ResponseT]
    request: RequestT
    metadata: tuple[tuple[str, str], ...]
    deadline: Deadline
    started_s: float
    endpoint: int
    begun: Any

    def cancel(self) -> None:
        """Nobody waits for the answer any more."""
        if self.begun is not None:
            self.begun.cancel()


class SyncUnary:
    """Makes unary calls; safe to use from several threads."""

    def __init__(self, channels: SyncChannels, policy: CallPolicy) -> None:
        """Calls nothing yet."""
        self._channels: Final = channels
        self._policy: Final = policy

    def launch(
        self, rpc: Rpc[RequestT, ResponseT], request: RequestT, context: CallContext, *, background: bool
    ) -> Flight[RequestT, ResponseT]:
        """Gives a call its turn and its deadline.

        Args:
            rpc: What to call.
            request: Its message.
            context: Its time and metadata.
            background: Whether it begins now; if not, `land` makes it in its own thread, which costs a third less.
        """
        self._policy.book_call()
        deadline, endpoint = Deadline.after(context.timeout_s), self._policy.rotation.choose()
        flight = Flight(rpc, request, context.metadata, deadline, time.monotonic(), endpoint, None)
        if not background and self._policy.hedge_after_s is None:
            return flight
        return replace(flight, begun=self._begin(flight, endpoint))

    def land(self, flight: Flight[RequestT, ResponseT]) -> tuple[ResponseT, CallTimings]:
        """The answer, with further attempts where they help and the deadline and the budget allow them.

        Raises:
            PolarvecError: It failed.
            RuntimeError: The client was closed.
        """
        endpoint, begun, started_s = flight.endpoint, flight.begun, flight.started_s
        for attempt in itertools.count(1):
            try:
                if self._policy.hedge_after_s is None:
                    take = partial(_result, begun) if begun is not None else self._make(flight, endpoint)
                    return self._collect(endpoint, take)
                return self._hedged(flight, endpoint, begun or self._begin(flight, endpoint), started_s)
            except PolarvecError as failure:
                delay_s = self._policy.retry_delay_s(failure, attempt, flight.deadline, waits=flight.rpc.waits)
                if delay_s is None:
                    raise
            time.sleep(delay_s)
            endpoint, begun, started_s = self._policy.rotation.choose(), None, time.monotonic()
        raise AssertionError("count() does not end")

    def _hedged(
        self, flight: Flight[RequestT, ResponseT], endpoint: int, first: Any, started_s: float
    ) -> tuple[ResponseT, CallTimings]:
        """The first answer of at most two calls; the other call is cancelled."""
        slow, calls = endpoint, {first: endpoint}
        try:
            if not self._ends_by(first, started_s + (self._policy.hedge_after_s or 0.0)) and self._policy.may_hedge():
                other = self._policy.rotation.choose(avoid=endpoint)
                calls[self._begin(flight, other)] = other
            done: queue.SimpleQueue[Any] = queue.SimpleQueue()
            for call in list(calls):
                call.add_done_callback(done.put)
            while True:
                call = done.get()
                endpoint = calls.pop(call)
                try:
                    answer = self._collect(endpoint, partial(_result, call))
                    if first in calls:  # One that failed has been booked.
                        self._policy.book_overtaken(slow, by=endpoint)
                    return answer
                except PolarvecError as failure:
                    if not calls or not another_may_answer(failure):
                        raise
        finally:
            for call in calls:
                call.cancel()

    def _ends_by(self, call: Any, at_s: float) -> bool:
        try:
            call.exception(timeout=max(0.0, at_s - time.monotonic()))
        except grpc.FutureTimeoutError:
            return False
        return True

    def _begin(self, flight: Flight[Any, Any], endpoint: int) -> Any:
        method = self._channels.method(endpoint, flight.rpc)
        with self._channels.in_use():
            return method.future(flight.request, timeout=flight.deadline.remaining_s(), metadata=flight.metadata)

    def _make(self, flight: Flight[Any, Any], endpoint: int) -> Callable[[], Any]:
        method = self._channels.method(endpoint, flight.rpc)
        return lambda: method.with_call(flight.request, timeout=flight.deadline.remaining_s(), metadata=flight.metadata)

    def _collect(self, endpoint: int, take: Callable[[], tuple[Any, Any]]) -> tuple[Any, CallTimings]:
        """The answer of an attempt; what became of it is booked for its endpoint."""
        try:
            with self._channels.in_use():
                response, call = take()
        except grpc.RpcError as error:
            failure = from_rpc_error(error)
        else:
            self._policy.rotation.answered(endpoint)
            return response, call_timings(call.trailing_metadata())
        self._policy.book_failure(endpoint, failure)
        raise failure


def _result(call: Any) -> tuple[Any, Any]:
    """The answer of a call that was begun, and the call."""
    try:
        return call.result(), call
    except grpc.RpcError:
        raise
    except BaseException:  # KeyboardInterrupt, gevent's kill: nobody waits for the answer any more.
        call.cancel()
        raise
