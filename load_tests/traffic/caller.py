"""Makes one call through the SDK, checks its vectors and counts what became of it."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Mapping, Sequence

import grpc
from polarvec import CallTimings, Client

from traffic.arrivals import call_seed
from traffic.references import References, WrongVector
from traffic.samples import Cell, Samples, bucket
from traffic.stretch import Order
from traffic.workload import Call, Workload

DROPPED = "DROPPED"
STAGES = ("queue_ms", "tokenize_ms", "inference_ms")

Fire = Callable[[str, str, float, int, Exception | None], None]
"""Hands one measurement to Locust: row, name, milliseconds, bytes, error."""


class CallFailed(Exception):
    """A failure by gRPC's code and the server's reason, so that Locust counts equal ones together."""


class Caller:
    """What every open call of a process shares."""

    def __init__(
        self,
        clients: Sequence[Client],
        workload: Workload,
        pools: Mapping[str, Sequence[str]],
        references: References,
        *,
        seed: int,
        slo_ms: Mapping[str, float],
        samples: Samples,
        fire: Fire,
    ) -> None:
        """Calls nothing yet."""
        self._clients = itertools.cycle(clients)
        self._workload, self._pools, self._references = workload, pools, references
        self._sizes = {name: len(texts) for name, texts in pools.items()}
        self._seed, self._slo_ms, self._samples, self._fire = seed, slo_ms, samples, fire

    def make(self, order: Order, number: int, due_s: float) -> None:
        """Makes arrival `number`; its latency counts from when it was due."""
        begun_s = time.monotonic()
        call = self._workload.call(call_seed(self._seed, order.phase, number), self._sizes)
        texts = [self._pools[call.kind.pool][row] for row in call.rows]
        error: Exception | None = None
        timings: tuple[CallTimings, ...] = ()
        byte_count = token_count = 0
        try:
            result = next(self._clients).embed_detailed(
                texts, input_type=call.kind.input_type, truncation="end", priority=call.kind.priority
            )
            ended_s = time.monotonic()  # Checking is our own time.
            timings, byte_count, token_count = result.calls, result.embeddings.nbytes, sum(result.token_counts)
            self._references.check(call.kind.input_type, texts, result.embeddings)
        except Exception as caught:  # Whatever it is: an arrival that is counted nowhere would be a lie.
            error, ended_s = caught, time.monotonic()
        latency_ms = (ended_s - due_s) * 1000
        self._samples.stage(order.phase.number, call.kind.name, "dispatch_ms", (begun_s - due_s) * 1000)
        if error is None:
            cell = count_right(
                self._samples, order, call.kind.name, due_s=due_s, ended_s=ended_s, slo_ms=self._slo_ms[call.kind.name]
            )
            cell.counts.update(texts=len(texts), tokens=token_count)
        else:
            cell = count_due(self._samples, order, call.kind.name, due_s)
            cell.counts["wrong" if isinstance(error, WrongVector) else "failed"] += 1
            error = self._count_error(order, call, error)
        self._fire("gRPC", call.kind.name, latency_ms, byte_count, error)
        self._stages(order, call, timings)

    def drop(self, order: Order, number: int, due_s: float) -> None:
        """Counts an arrival that found too many calls open as failed."""
        call = self._workload.call(call_seed(self._seed, order.phase, number), self._sizes)
        count_due(self._samples, order, call.kind.name, due_s).counts["dropped"] += 1
        error = self._count_error(order, call, CallFailed(f"{DROPPED} too many open calls"))
        self._fire("gRPC", call.kind.name, (time.monotonic() - due_s) * 1000, 0, error)

    def _count_error(self, order: Order, call: Call, error: Exception) -> Exception:
        named = CallFailed(code_of(error))
        self._samples.errors[order.phase.number, call.kind.name, str(named)] += 1
        return named

    def _stages(self, order: Order, call: Call, timings: Sequence[CallTimings]) -> None:
        for answer in timings:
            for stage in STAGES:
                value = getattr(answer, stage)
                if value is not None:
                    self._samples.stage(order.phase.number, call.kind.name, stage, value)
                    self._fire("server", f"{call.kind.name} {stage}", value, 0, None)


def count_due(samples: Samples, order: Order, kind: str, due_s: float) -> Cell:
    """Counts a call as offered in the second, and so in the phase, in which it was due."""
    cell = samples.cell(order.due_second(due_s), kind)
    cell.counts["offered"] += 1
    return cell


def count_right(samples: Samples, order: Order, kind: str, *, due_s: float, ended_s: float, slo_ms: float) -> Cell:
    """Counts a call with the right answer; the second in which that came is told apart from the one of the call."""
    cell = count_due(samples, order, kind, due_s)
    latency_ms = (ended_s - due_s) * 1000
    cell.latencies[bucket(latency_ms)] += 1
    cell.counts["right"] += 1
    cell.counts["good"] += latency_ms <= slo_ms
    cell.counts["ended_within"] += ended_s <= order.ends_s
    samples.cell(order.end_second(ended_s), kind).counts["finished"] += 1
    return cell


def code_of(error: Exception) -> str:
    """The code of gRPC and the reason of the server, or what else names the failure."""
    if isinstance(error, WrongVector):
        return f"WRONG_VECTOR {error}"
    if isinstance(error, CallFailed):
        return str(error)
    cause = error.__cause__
    code = cause.code() if isinstance(cause, grpc.RpcError) else None
    return f"{code.name if code else type(error).__name__} {getattr(error, 'reason', '')}".rstrip()
