"""A real grpc.aio server whose answers a test can script; it runs in a thread and an event loop of its own."""

from __future__ import annotations

import asyncio
import hashlib
import threading
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field

import grpc
import grpc.aio
import numpy as np
from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from polarvec_proto.v1 import embedding_pb2 as pb
from polarvec_proto.v1 import embedding_pb2_grpc

DIMENSIONS = 16
BAD = "BAD"  # A text with this in it is refused.


def vector(text: str, dimensions: int = DIMENSIONS) -> np.ndarray:
    """What the server answers for a text: (D,) float32, unit length, different for each text."""
    seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little")
    row = np.random.default_rng(seed).standard_normal(dimensions).astype(np.float32)
    return row / np.linalg.norm(row)


def encode(rows: np.ndarray, encoding: int) -> tuple[bytes, list[float]]:
    """Rows (N, D) float32 as API.md writes them: the bytes and, for INT8, the scales."""
    if encoding == pb.ENCODING_FLOAT16:
        return rows.astype("<f2").tobytes(), []
    if encoding == pb.ENCODING_INT8:
        scales = np.maximum(np.abs(rows).max(axis=1), 1e-12) / 127
        return np.rint(rows / scales[:, None]).astype(np.int8).tobytes(), scales.astype(np.float32).tolist()
    if encoding == pb.ENCODING_BINARY:
        return np.packbits(rows > 0, axis=1, bitorder="big").tobytes(), []
    return rows.astype("<f4").tobytes(), []


def status(
    code: grpc.StatusCode,
    reason: str = "",
    *,
    message: str = "scripted",
    field: str = "",
    retry_after_s: float | None = None,
    **metadata: str,
) -> status_pb2.Status:
    """A google.rpc.Status with the details that API.md promises."""
    result = status_pb2.Status(code=code.value[0], message=message)
    if reason:
        info = error_details_pb2.ErrorInfo(reason=reason, domain="polarvec", metadata=metadata)
        result.details.add().Pack(info)
    if field:
        violation = error_details_pb2.BadRequest.FieldViolation(field=field, description=message)
        result.details.add().Pack(error_details_pb2.BadRequest(field_violations=[violation]))
    if retry_after_s is not None:
        delay = Duration()
        delay.FromNanoseconds(int(retry_after_s * 1e9))
        result.details.add().Pack(error_details_pb2.RetryInfo(retry_delay=delay))
    return result


@dataclass(frozen=True)
class SeenCall:
    """What arrived."""

    rpc: str
    request: object
    remaining_s: float
    metadata: dict[str, str]


@dataclass
class ScriptedServer(embedding_pb2_grpc.EmbeddingServiceServicer):
    """Everything that a test may set before a call and look at after it."""

    limits: pb.Limits = field(default_factory=pb.Limits)
    api_key: str = ""  # if any, calls without it are refused
    faults: dict[str, deque[status_pb2.Status]] = field(default_factory=dict)  # by RPC, the next ones first
    item_faults: deque[status_pb2.Status] = field(default_factory=deque)  # for the next items of streams
    delay_s: float = 0.0
    delay_of: Callable[[str], float] | None = None  # by the first text of a call or item
    break_stream_after: deque[int] = field(default_factory=deque)  # answers after which the next streams break
    change: Callable[[pb.EmbedResponse], None] | None = None  # the last touch to every answer
    seen: list[SeenCall] = field(default_factory=list)
    in_flight: int = 0
    max_in_flight: int = 0
    items_read: int = 0
    streams_ended: int = 0  # by the client, without cancelling

    def texts_seen(self, rpc: str = "Embed") -> list[list[str]]:
        """The texts of each call."""
        return [list(call.request.texts) for call in self.seen if call.rpc == rpc]

    def count(self, rpc: str) -> int:
        """How often an RPC arrived."""
        return Counter(call.rpc for call in self.seen)[rpc]

    def fail_next(self, rpc: str, *statuses: status_pb2.Status) -> None:
        """The next calls of an RPC end with these."""
        self.faults.setdefault(rpc, deque()).extend(statuses)

    async def Embed(self, request: pb.EmbedRequest, context: grpc.aio.ServicerContext) -> pb.EmbedResponse:
        await self._arrive("Embed", request, context)
        self.in_flight += 1
        self.max_in_flight = max(self.max_in_flight, self.in_flight)
        try:
            await asyncio.sleep(self._delay(request.texts))
        finally:
            self.in_flight -= 1
        answer = self._embed(request)
        if isinstance(answer, status_pb2.Status):
            await _abort(context, answer)
        return answer

    async def EmbedStream(
        self, requests: AsyncIterator[pb.EmbedStreamRequest], context: grpc.aio.ServicerContext
    ) -> None:
        await self._arrive("EmbedStream", None, context)
        left = self.break_stream_after.popleft() if self.break_stream_after else None
        lock = asyncio.Lock()

        async def answer(item: pb.EmbedStreamRequest) -> None:
            nonlocal left
            await asyncio.sleep(self._delay(item.request.texts))
            result = self.item_faults.popleft() if self.item_faults else self._embed(item.request)
            name = "error" if isinstance(result, status_pb2.Status) else "response"
            async with lock:
                if left is not None:
                    left -= 1
                    if left < 0:
                        raise _Break
                await context.write(pb.EmbedStreamResponse(item_number=item.item_number, **{name: result}))

        try:
            async with asyncio.TaskGroup() as group:
                while (item := await context.read()) is not grpc.aio.EOF:
                    self.items_read += 1
                    group.create_task(answer(item))
            self.streams_ended += 1
        except* _Break:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "scripted break")

    async def Rank(self, request: pb.RankRequest, context: grpc.aio.ServicerContext) -> pb.RankResponse:
        await self._arrive("Rank", request, context)
        documents = np.stack([vector(text) for text in request.documents])
        response = pb.RankResponse(model="tiny", fingerprint="f1")
        for query in request.queries:
            scores = documents @ vector(query)
            order = np.argsort(-scores, kind="stable")[: request.top_k or None]
            response.rankings.add(document_indexes=order.tolist(), scores=scores[order].tolist())
        return response

    async def Tokenize(self, request: pb.TokenizeRequest, context: grpc.aio.ServicerContext) -> pb.TokenizeResponse:
        await self._arrive("Tokenize", request, context)
        response = pb.TokenizeResponse(model="tiny", max_token_count=64)
        for text in request.texts:
            ids = [ord(character) for character in text] if request.include_ids else []
            response.texts.add(token_count=len(text), too_long=len(text) > 64, token_ids=ids)
        return response

    async def ListModels(
        self, request: pb.ListModelsRequest, context: grpc.aio.ServicerContext
    ) -> pb.ListModelsResponse:
        await self._arrive("ListModels", request, context)
        return pb.ListModelsResponse(models=[self._model()])

    async def GetModel(self, request: pb.GetModelRequest, context: grpc.aio.ServicerContext) -> pb.GetModelResponse:
        await self._arrive("GetModel", request, context)
        if request.model not in ("", "tiny"):
            await _abort(context, status(grpc.StatusCode.NOT_FOUND, "UNKNOWN_MODEL", models="tiny"))
        return pb.GetModelResponse(model=self._model())

    def _model(self) -> pb.Model:
        return pb.Model(
            id="tiny",
            revision="r1",
            architecture="XLMRobertaModel",
            dimensions=DIMENSIONS,
            trained_dimensions=[8],
            max_token_count=64,
            pooling=pb.POOLING_MEAN,
            prompts={"query": "query: "},
            precision="f32",
            engine="torch",
            limits=self.limits,
            fingerprint="f1",
        )

    def _delay(self, texts: Sequence[str]) -> float:
        return self.delay_of(texts[0]) if self.delay_of else self.delay_s

    def _embed(self, request: pb.EmbedRequest) -> pb.EmbedResponse | status_pb2.Status:
        invalid = grpc.StatusCode.INVALID_ARGUMENT
        for index, text in enumerate(request.texts):
            if BAD in text:
                return status(
                    invalid,
                    "TEXT_TOO_LONG",
                    message=f"texts[{index}] is bad; make it good.",
                    field=f"texts[{index}]",
                    index=str(index),
                )
        tokens = sum(map(len, request.texts))  # One token a character: more than the client's estimate.
        if 0 < self.limits.max_token_count < tokens and len(request.texts) > 1:
            return status(invalid, "TOO_MANY_TEXTS", token_count=str(tokens))
        if 0 < self.limits.max_text_count < len(request.texts):
            return status(invalid, "TOO_MANY_TEXTS", text_count=str(len(request.texts)))
        rows = np.stack([vector(text, request.dimensions or DIMENSIONS) for text in request.texts])
        data, scales = encode(rows, request.encoding)
        cut = [pb.TruncatedText(index=i, token_count=len(t)) for i, t in enumerate(request.texts) if len(t) > 64]
        response = pb.EmbedResponse(
            model="tiny",
            fingerprint="f1",
            dimensions=rows.shape[1],
            encoding=request.encoding,
            embeddings=data,
            scales=scales,
            token_counts=[min(len(text), 64) for text in request.texts],
            truncated=cut,
        )
        if self.change:
            self.change(response)
        return response

    async def _arrive(self, rpc: str, request: object, context: grpc.aio.ServicerContext) -> None:
        metadata = {key: value for key, value in context.invocation_metadata() or () if isinstance(value, str)}
        self.seen.append(SeenCall(rpc, request, context.time_remaining(), metadata))
        timings = (("x-queue-ms", "1.5"), ("x-tokenize-ms", "0.25"), ("x-inference-ms", "7"))
        context.set_trailing_metadata((("x-request-id", f"r{len(self.seen)}"), *timings))
        if self.api_key and metadata.get("authorization") != f"Bearer {self.api_key}":
            await _abort(context, status(grpc.StatusCode.UNAUTHENTICATED, "UNAUTHENTICATED"))
        if self.faults.get(rpc):
            await _abort(context, self.faults[rpc].popleft())


class _Break(Exception):
    """The stream is to break here."""


async def _abort(context: grpc.aio.ServicerContext, failure: status_pb2.Status) -> None:
    code = next(code for code in grpc.StatusCode if code.value[0] == failure.code)
    trailers = (("grpc-status-details-bin", failure.SerializeToString()), ("x-request-id", "r-failed"))
    await context.abort(code, failure.message, trailers if failure.details else ())


class RunningServer:
    """A ScriptedServer on a port of this machine, in a thread with its own event loop."""

    def __init__(
        self,
        servicer: ScriptedServer,
        port: int = 0,
        *,
        host: str = "127.0.0.1",
        credentials: grpc.ServerCredentials | None = None,
    ) -> None:
        self.servicer = servicer
        self._wanted_port = port
        self._host = host
        self._credentials = credentials
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), name="scripted-server")
        self.health: health.aio.HealthServicer
        self.target = ""
        self.port = 0
        self._loop: asyncio.AbstractEventLoop
        self._stop: asyncio.Event

    def __enter__(self) -> RunningServer:
        self._thread.start()
        assert self._ready.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)
        assert not self._thread.is_alive()

    def set_health(self, service: str, *, serving: bool) -> None:
        """What the health service says of a name."""
        value = health_pb2.HealthCheckResponse.SERVING if serving else health_pb2.HealthCheckResponse.NOT_SERVING
        asyncio.run_coroutine_threadsafe(self.health.set(service, value), self._loop).result(5)

    async def _serve(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        server = grpc.aio.server(options=(("grpc.so_reuseport", 0), ("grpc.max_receive_message_length", 2**20)))
        embedding_pb2_grpc.add_EmbeddingServiceServicer_to_server(self.servicer, server)
        self.health = health.aio.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(self.health, server)
        address = f"{self._host}:{self._wanted_port}"
        self.port = (
            server.add_insecure_port(address)
            if self._credentials is None
            else server.add_secure_port(address, self._credentials)
        )
        self.target = f"{self._host}:{self.port}"
        await server.start()
        self._ready.set()
        await self._stop.wait()
        await server.stop(0)
