"""The door polarvec.v1.EmbeddingService: messages in, embedder calls, messages out."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import numpy as np
from numpy.typing import NDArray
from polarvec_proto.v1 import embedding_pb2 as pb
from polarvec_proto.v1 import embedding_pb2_grpc

from polarvec_server.edge import requests
from polarvec_server.edge.deadlines import Context, Deadlines, stream_deadline
from polarvec_server.edge.record import CallRecord, current_record
from polarvec_server.edge.registry import ModelRegistry
from polarvec_server.edge.stream import answer_items
from polarvec_server.errors import InvalidField
from polarvec_server.pipeline.embedder import Schedule
from polarvec_server.pipeline.postprocess import encode_vectors
from polarvec_server.pipeline.values import InputType, TextOptions, Timings, Truncation, VectorOptions


class EmbeddingService(embedding_pb2_grpc.EmbeddingServiceServicer):
    """See proto/polarvec/v1/embedding.proto for what each call promises."""

    def __init__(self, registry: ModelRegistry, deadlines: Deadlines) -> None:
        self._registry, self._deadlines = registry, deadlines

    async def Embed(self, request: pb.EmbedRequest, context: Context) -> pb.EmbedResponse:
        """Embeds many texts, all or none."""
        record = current_record.get()
        record.timed = True
        return await self._embed(request, record, deadline=self._deadlines.single(context))

    async def _embed(
        self, request: pb.EmbedRequest, record: CallRecord, *, deadline: float | None, wait_for_room: bool = False
    ) -> pb.EmbedResponse:
        model = self._registry.find(request.model)
        options = requests.read_text_options(request, requests.read_truncation(request.truncation))
        vector_options = requests.read_vector_options(request)
        priority = requests.read_priority(request.priority, options.input_type)
        model.check_text_count(len(request.texts), "texts")
        schedule = Schedule(priority, deadline, wait_for_room, Timings())
        record.model = model.id
        embedded = await model.embedder.embed(list(request.texts), options, vector_options, schedule)
        record.note(embedded.tokenized, schedule.timings)
        encoded = encode_vectors(embedded.vectors, vector_options.encoding)
        return pb.EmbedResponse(
            model=model.id,
            fingerprint=model.fingerprint,
            dimensions=encoded.dimensions,
            encoding=requests.ENCODING_NUMBERS[encoded.encoding],
            embeddings=encoded.data,
            scales=() if encoded.scales is None else encoded.scales.tolist(),
            token_counts=embedded.tokenized.lengths.tolist(),
            truncated=[
                pb.TruncatedText(index=int(index), token_count=int(embedded.tokenized.full_counts[index]))
                for index in embedded.tokenized.cut_rows
            ],
        )

    async def EmbedStream(
        self, request_iterator: AsyncIterator[pb.EmbedStreamRequest], context: Context
    ) -> AsyncIterator[pb.EmbedStreamResponse]:
        """Embeds in bulk; a bad item spoils nothing else."""
        deadline, record = stream_deadline(context), current_record.get()

        async def embed(request: pb.EmbedRequest) -> pb.EmbedResponse:
            return await self._embed(request, record, deadline=deadline, wait_for_room=True)

        async for response in answer_items(request_iterator, embed):
            yield response

    async def Rank(self, request: pb.RankRequest, context: Context) -> pb.RankResponse:
        """Orders documents by cosine similarity to each query."""
        model = self._registry.find(request.model)
        if request.top_k < 0:
            raise InvalidField("top_k", "must be 0 (all) or a positive number")
        truncation = requests.read_truncation(request.truncation)
        priority = requests.read_priority(request.priority, InputType.QUERY)
        record = current_record.get()
        record.model, record.timed = model.id, True
        groups = []
        for field, input_type in (("queries", InputType.QUERY), ("documents", InputType.DOCUMENT)):
            model.check_text_count(len(getattr(request, field)), field)
            groups.append((list(getattr(request, field)), TextOptions(input_type, truncation=truncation, field=field)))
        schedule = Schedule(priority, self._deadlines.single(context))
        queries, documents = await model.embedder.embed_together(groups, VectorOptions(request.dimensions), schedule)
        for side in (queries, documents):
            record.note(side.tokenized, schedule.timings)
        top_k = min(request.top_k or len(request.documents), len(request.documents))
        return pb.RankResponse(
            model=model.id,
            fingerprint=model.fingerprint,
            # A thousand queries over a thousand documents take a tenth of a second: not on the event loop.
            rankings=await asyncio.to_thread(_rank, queries.vectors, documents.vectors, top_k),
            query_token_counts=queries.tokenized.lengths.tolist(),
            document_token_counts=documents.tokenized.lengths.tolist(),
        )

    async def Tokenize(self, request: pb.TokenizeRequest, context: Context) -> pb.TokenizeResponse:
        """Counts tokens after the prompt."""
        model = self._registry.find(request.model)
        options = requests.read_text_options(request, Truncation.END)
        model.check_text_count(len(request.texts), "texts")
        tokenized = await model.embedder.tokenize(list(request.texts), options)
        record = current_record.get()
        record.model, record.text_count, record.embeds = model.id, len(request.texts), False
        limit = model.embedder.max_tokens
        texts = []
        for index, count in enumerate(tokenized.full_counts.tolist()):
            ids = tokenized.token_ids[tokenized.offsets[index] : tokenized.offsets[index + 1]].tolist()
            texts.append(
                pb.TokenizedText(
                    token_count=count, too_long=count > limit, token_ids=ids if request.include_ids else ()
                )
            )
        return pb.TokenizeResponse(model=model.id, texts=texts, max_token_count=limit)

    async def ListModels(self, request: pb.ListModelsRequest, context: Context) -> pb.ListModelsResponse:
        """Lists the models, the default one first."""
        return pb.ListModelsResponse(models=[model.message for model in self._registry.visible()])

    async def GetModel(self, request: pb.GetModelRequest, context: Context) -> pb.GetModelResponse:
        """Describes one model."""
        return pb.GetModelResponse(model=self._registry.find(request.model).message)


def _rank(queries: NDArray[np.float32], documents: NDArray[np.float32], top_k: int) -> list[pb.Ranking]:
    """Orders documents by cosine; a stable sort keeps equal scores in the order of the request."""
    rankings = []
    for scores in queries @ documents.T:
        order = np.argsort(-scores, kind="stable")[:top_k]
        best = np.clip(scores[order], -1.0, 1.0)
        rankings.append(pb.Ranking(document_indexes=order.tolist(), scores=best.tolist()))
    return rankings
