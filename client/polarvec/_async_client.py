"""The asyncio client: what a program calls, one method for each thing that the server does."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable, Iterable, Sequence
from contextlib import aclosing
from types import TracebackType
from typing import Literal, Self, Unpack, overload

import grpc
from polarvec_proto.v1 import embedding_pb2 as pb

from polarvec._async_calls import AsyncCalls
from polarvec._batching import Batcher, batcher_for, batches
from polarvec._channel import (
    GET_MODEL,
    HEALTH,
    LIST_MODELS,
    RANK,
    TOKENIZE,
    channel_settings,
    health_request,
    is_serving,
)
from polarvec._context import CallContext, trace_metadata
from polarvec._progress import async_shown_progress, progress_bar, text_count_of
from polarvec._requests import (
    as_texts,
    check_stream_source,
    checked_count,
    checked_timeout_s,
    embed_template,
    get_model_request,
    rank_request,
    tokenize_request,
    tokenize_template,
)
from polarvec._results import EmbedParts, model_from, rankings, tokenized_texts
from polarvec._stream import StreamLedger
from polarvec._targets import DEFAULT_TARGET
from polarvec._tls import Tls
from polarvec._types import (
    ArrayEncoding,
    EmbeddingResult,
    Embeddings,
    EmbedOptions,
    Encoding,
    InputType,
    Int8Embeddings,
    Limits,
    Matrix,
    Model,
    PromptOptions,
    Ranking,
    RankOptions,
    StreamItem,
    Texts,
    TokenizedText,
    Vector,
    VectorOptions,
)

# Items of a stream in the book for each call in flight: enough that the server always has some to pack.
_ITEMS_A_CALL = 4


class AsyncClient:
    """A Polarvec server, for asyncio; bound to the event loop of its first call.

    A str gives a 1-D array (D,), a list an (N, D) array in the order given. Long lists are split by the server's
    limits into several gRPC calls. Every call may raise a PolarvecError.
    """

    def __init__(
        self,
        target: str | Sequence[str] = DEFAULT_TARGET,
        *,
        timeout_s: float = 30.0,
        max_in_flight: int = 4,
        hedge_after_s: float | None = None,
        api_key: str | None = None,
        tls: Tls | None = None,
        credentials: grpc.ChannelCredentials | None = None,
    ) -> None:
        """Connects to nothing yet; the first call does.

        Args:
            target: host:port, a gRPC name such as dns:///host:port or unix:/path, or a list of those. A list's servers
                take calls in turn, and one in trouble is passed over; they must serve the same model.
            timeout_s: Seconds that one gRPC call may take, waits and retries included.
            max_in_flight: gRPC calls that one method call has under way at most, for each target.
            hedge_after_s: Seconds after which a call without an answer is made a second time, at another target if
                there is one; the first answer counts. At most one call in twenty is. None means never.
            api_key: Sent as `authorization: Bearer ...`; use it with `tls`, or it travels in the clear.
            tls: Encrypts the connections; None is plain text.
            credentials: In place of `tls`, whatever else gRPC can do.

        Raises:
            InvalidRequest: An argument has a value that cannot work.
        """
        settings = channel_settings(target, api_key=api_key, tls=tls, credentials=credentials)
        endpoint_count = len(settings.endpoints)
        self._target = settings.endpoints[0] if endpoint_count == 1 else list(settings.endpoints)
        self._metadata = settings.metadata
        self._timeout_s = checked_timeout_s(timeout_s)
        self._max_in_flight = checked_count("max_in_flight", max_in_flight) * endpoint_count
        if hedge_after_s is not None:
            checked_timeout_s(hedge_after_s, "hedge_after_s")
        self._calls = AsyncCalls(settings, max_in_flight=self._max_in_flight, hedge_after_s=hedge_after_s)
        self._models: dict[str, Model] = {}

    @overload
    async def embed_queries(
        self, texts: str, *, encoding: ArrayEncoding = ..., **options: Unpack[EmbedOptions]
    ) -> Vector: ...
    @overload
    async def embed_queries(
        self, texts: Texts, *, encoding: ArrayEncoding = ..., **options: Unpack[EmbedOptions]
    ) -> Matrix: ...
    @overload
    async def embed_queries(
        self, texts: str | Texts, *, encoding: Literal["int8"], **options: Unpack[EmbedOptions]
    ) -> Int8Embeddings: ...
    async def embed_queries(
        self, texts: str | Texts, *, encoding: Encoding = "float32", **options: Unpack[EmbedOptions]
    ) -> Embeddings:
        """Embeds search queries.

        Args:
            texts: One or several.
            encoding: "float32", "float16", "int8" (gives Int8Embeddings) or "binary" (packed bits: D/8 columns, uint8).
            **options: See `EmbedOptions`.

        Returns:
            (D,) for a str, (N, D) for a list; unit length unless `unnormalized`.
        """
        result = await self.embed_detailed(texts, input_type="query", encoding=encoding, **options)
        return result.embeddings

    @overload
    async def embed_documents(
        self, texts: str, *, encoding: ArrayEncoding = ..., **options: Unpack[EmbedOptions]
    ) -> Vector: ...
    @overload
    async def embed_documents(
        self, texts: Texts, *, encoding: ArrayEncoding = ..., **options: Unpack[EmbedOptions]
    ) -> Matrix: ...
    @overload
    async def embed_documents(
        self, texts: str | Texts, *, encoding: Literal["int8"], **options: Unpack[EmbedOptions]
    ) -> Int8Embeddings: ...
    async def embed_documents(
        self, texts: str | Texts, *, encoding: Encoding = "float32", **options: Unpack[EmbedOptions]
    ) -> Embeddings:
        """Embeds documents to be found.

        Args:
            texts: One or several.
            encoding: "float32", "float16", "int8" (gives Int8Embeddings) or "binary" (packed bits: D/8 columns, uint8).
            **options: See `EmbedOptions`.

        Returns:
            (D,) for a str, (N, D) for a list; unit length unless `unnormalized`.
        """
        result = await self.embed_detailed(texts, input_type="document", encoding=encoding, **options)
        return result.embeddings

    @overload
    async def embed(
        self, texts: str, *, input_type: InputType, encoding: ArrayEncoding = ..., **options: Unpack[EmbedOptions]
    ) -> Vector: ...
    @overload
    async def embed(
        self,
        texts: Texts,
        *,
        input_type: InputType,
        encoding: ArrayEncoding = ...,
        **options: Unpack[EmbedOptions],
    ) -> Matrix: ...
    @overload
    async def embed(
        self,
        texts: str | Texts,
        *,
        input_type: InputType,
        encoding: Literal["int8"],
        **options: Unpack[EmbedOptions],
    ) -> Int8Embeddings: ...
    async def embed(
        self,
        texts: str | Texts,
        *,
        input_type: InputType,
        encoding: Encoding = "float32",
        **options: Unpack[EmbedOptions],
    ) -> Embeddings:
        """Embeds texts.

        Args:
            texts: One or several.
            input_type: "query", "document" or "raw" (no prompt).
            encoding: "float32", "float16", "int8" (gives Int8Embeddings) or "binary" (packed bits: D/8 columns, uint8).
            **options: See `EmbedOptions`.

        Returns:
            (D,) for a str, (N, D) for a list; unit length unless `unnormalized`.
        """
        result = await self.embed_detailed(texts, input_type=input_type, encoding=encoding, **options)
        return result.embeddings

    async def embed_detailed(
        self,
        texts: str | Texts,
        *,
        input_type: InputType,
        encoding: Encoding = "float32",
        timeout_s: float | None = None,
        traceparent: str | None = None,
        progress: bool = False,
        **options: Unpack[VectorOptions],
    ) -> EmbeddingResult:
        """Embeds texts and keeps what else the server said: token counts, cut texts, fingerprint, timings.

        Args:
            texts: One or several.
            input_type: "query", "document" or "raw" (no prompt).
            encoding: "float32", "float16", "int8" or "binary".
            timeout_s: Seconds that one gRPC call may take; the client's own if None.
            traceparent: The W3C trace that the call belongs to; OpenTelemetry's current one if None.
            progress: Shows a tqdm bar.
            **options: See `VectorOptions`.
        """
        listed, single = as_texts(texts)
        template = embed_template(input_type=input_type, encoding=encoding, **options)
        context = self._context(timeout_s, traceparent)
        batcher = await self._batcher(template, context, text_count=len(listed))
        parts = EmbedParts(len(listed))
        with progress_bar(len(listed), shown=progress) as advance:
            async with aclosing(self._calls.embed(list(batches(listed, batcher)), template, context)) as answers:
                async for part in answers:
                    parts.append(part)
                    advance(len(part.batch.texts))
        return parts.result(single=single)

    def embed_stream(
        self,
        texts: Iterable[str] | AsyncIterable[str],
        *,
        input_type: InputType,
        encoding: Encoding = "float32",
        batch_size: int = 128,
        ordered: bool = True,
        timeout_s: float | None = None,
        traceparent: str | None = None,
        progress: bool = False,
        **options: Unpack[VectorOptions],
    ) -> AsyncGenerator[StreamItem, None]:
        """Embeds any number of texts in bounded memory; a bad text gets its own error and spoils nothing else.

        The input is read only as far as answers have been taken; an abandoned iterator ends the call when it is
        closed. After a lost connection the job goes on in a new call.

        Args:
            texts: Read lazily, once.
            input_type: "query", "document" or "raw" (no prompt).
            encoding: "float32", "float16", "int8" or "binary".
            batch_size: Texts in one item of the stream, at most.
            ordered: False hands texts out as they are done; `StreamItem.index` says which is which.
            timeout_s: Seconds that the server may stay silent; the client's own if None.
            traceparent: The W3C trace that the call belongs to; OpenTelemetry's current one if None.
            progress: Shows a tqdm bar; it knows the end if `texts` has a length.
            **options: See `VectorOptions`.
        """
        template = embed_template(input_type=input_type, encoding=encoding, **options)
        check_stream_source(texts)
        checked_count("batch_size", batch_size)
        context = self._context(timeout_s, traceparent)
        items = self._stream(texts, template, context, batch_size=batch_size, ordered=ordered)
        return async_shown_progress(items, text_count_of(texts)) if progress else items

    @overload
    async def rank(
        self,
        queries: str,
        documents: Texts,
        *,
        top_k: int = ...,
        timeout_s: float | None = ...,
        traceparent: str | None = ...,
        **options: Unpack[RankOptions],
    ) -> Ranking: ...
    @overload
    async def rank(
        self,
        queries: Texts,
        documents: Texts,
        *,
        top_k: int = ...,
        timeout_s: float | None = ...,
        traceparent: str | None = ...,
        **options: Unpack[RankOptions],
    ) -> list[Ranking]: ...
    async def rank(
        self,
        queries: str | Texts,
        documents: Texts,
        *,
        top_k: int = 0,
        timeout_s: float | None = None,
        traceparent: str | None = None,
        **options: Unpack[RankOptions],
    ) -> Ranking | list[Ranking]:
        """Orders documents by cosine similarity to each query, in one gRPC call.

        Args:
            queries: One or several.
            documents: At least one.
            top_k: Documents to name for each query; 0 means all.
            timeout_s: Seconds that the call may take; the client's own if None.
            traceparent: The W3C trace that the call belongs to; OpenTelemetry's current one if None.
            **options: See `RankOptions`.

        Returns:
            One Ranking for a str, a list of them for a list.
        """
        listed, single = as_texts(queries, "queries")
        passages, _ = as_texts(documents, "documents")
        request = rank_request(listed, passages, top_k=top_k, **options)
        response = await self._calls.unary(RANK, request, self._context(timeout_s, traceparent))
        result = rankings(response, len(listed))
        return result[0] if single else result

    @overload
    async def tokenize(
        self,
        texts: str,
        *,
        input_type: InputType,
        include_ids: bool = ...,
        timeout_s: float | None = ...,
        traceparent: str | None = ...,
        **options: Unpack[PromptOptions],
    ) -> TokenizedText: ...
    @overload
    async def tokenize(
        self,
        texts: Texts,
        *,
        input_type: InputType,
        include_ids: bool = ...,
        timeout_s: float | None = ...,
        traceparent: str | None = ...,
        **options: Unpack[PromptOptions],
    ) -> list[TokenizedText]: ...
    async def tokenize(
        self,
        texts: str | Texts,
        *,
        input_type: InputType,
        include_ids: bool = False,
        timeout_s: float | None = None,
        traceparent: str | None = None,
        **options: Unpack[PromptOptions],
    ) -> TokenizedText | list[TokenizedText]:
        """Counts tokens after the prompt, special tokens included.

        Args:
            texts: One or several.
            input_type: "query", "document" or "raw" (no prompt).
            include_ids: Asks for the token ids too.
            timeout_s: Seconds that one gRPC call may take; the client's own if None.
            traceparent: The W3C trace that the call belongs to; OpenTelemetry's current one if None.
            **options: See `PromptOptions`.

        Returns:
            One TokenizedText for a str, a list of them for a list.
        """
        listed, single = as_texts(texts)
        template = tokenize_template(input_type=input_type, include_ids=include_ids, **options)
        context = self._context(timeout_s, traceparent)
        batcher = await self._batcher(template, context, text_count=len(listed))
        result: list[TokenizedText] = []
        for batch in batches(listed, batcher):
            response = await self._calls.unary(TOKENIZE, tokenize_request(template, batch.texts), context)
            result += tokenized_texts(response, len(batch.texts))
        return result[0] if single else result

    async def models(self, *, timeout_s: float | None = None, traceparent: str | None = None) -> list[Model]:
        """The models that the server answers for, the default one first."""
        response = await self._calls.unary(LIST_MODELS, pb.ListModelsRequest(), self._context(timeout_s, traceparent))
        return [model_from(message) for message in response.models]

    async def model(self, model: str = "", *, timeout_s: float | None = None, traceparent: str | None = None) -> Model:
        """One model; the default one if no id is given."""
        response = await self._calls.unary(GET_MODEL, get_model_request(model), self._context(timeout_s, traceparent))
        return model_from(response.model)

    async def health(
        self, service: str = "", *, timeout_s: float | None = None, traceparent: str | None = None
    ) -> bool:
        """Whether the server can embed now, proven by a real inference; never waits for one that is away.

        Args:
            service: A model id; empty means the whole server.
            timeout_s: Seconds that the call may take; the client's own if None.
            traceparent: The W3C trace that the call belongs to; OpenTelemetry's current one if None.

        Raises:
            NotFound: There is no such model.
            Unavailable: The server cannot be reached.
        """
        return is_serving(
            await self._calls.unary(HEALTH, health_request(service), self._context(timeout_s, traceparent))
        )

    async def close(self) -> None:
        """Ends the connection; the client cannot be used afterwards."""
        await self._calls.close()

    async def __aenter__(self) -> Self:
        """The client itself."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Closes it."""
        await self.close()

    def __repr__(self) -> str:
        """The target; never the key."""
        return f"AsyncClient({self._target!r})"

    def _context(self, timeout_s: float | None, traceparent: str | None) -> CallContext:
        timeout_s = self._timeout_s if timeout_s is None else checked_timeout_s(timeout_s)
        return CallContext(timeout_s, (*self._metadata, *trace_metadata(traceparent)))

    async def _batcher(
        self, template: pb.EmbedRequest | pb.TokenizeRequest, context: CallContext, *, text_count: int
    ) -> Batcher:
        if text_count == 1:  # One text is one call whatever the limits are.
            return Batcher(Limits(), max_token_count=0)
        model = await self._cached_model(template.model, context)
        return batcher_for(model, template)

    async def _cached_model(self, model: str, context: CallContext) -> Model:
        if model not in self._models:
            response = await self._calls.unary(GET_MODEL, get_model_request(model), context)
            self._models[model] = model_from(response.model)
        return self._models[model]

    async def _stream(
        self,
        texts: Iterable[str] | AsyncIterable[str],
        template: pb.EmbedRequest,
        context: CallContext,
        *,
        batch_size: int,
        ordered: bool,
    ) -> AsyncGenerator[StreamItem, None]:
        model = await self._cached_model(template.model, context)
        ledger = StreamLedger(
            template,
            batcher_for(model, template, max_text_count=batch_size),
            max_text_bytes=model.limits.max_text_bytes,
            window_text_count=batch_size * _ITEMS_A_CALL * self._max_in_flight,
            ordered=ordered,
            timeout_s=context.timeout_s,
        )
        async with aclosing(self._calls.stream(texts, ledger, context)) as items:
            async for item in items:
                yield item
