"""tei.v1.Embed: one text a message, alone or in a stream."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Sequence

from polarvec_server.config import GPU_ENGINES
from polarvec_server.edge import tei_messages as messages
from polarvec_server.edge.deadlines import Context, stream_deadline
from polarvec_server.edge.ordered_stream import answer_in_order
from polarvec_server.edge.record import current_record
from polarvec_server.edge.registry import ServedModel
from polarvec_server.edge.tei_model import TeiModel
from polarvec_server.edge.tei_refusals import refuse, refuse_stream
from polarvec_server.edge.text_groups import EmbeddedText, TextGroups
from polarvec_server.pipeline.embedder import Embedded, Schedule
from polarvec_server.pipeline.values import Priority, TextOptions, Timings, VectorOptions
from polarvec_server.tei_proto import tei_pb2 as tei
from polarvec_server.tei_proto import tei_pb2_grpc

# Items of one stream at a time: two groups of texts, few enough to bound what one caller parks here.
_TEXTS_AT_A_TIME = 128


class EmbedService(tei_pb2_grpc.EmbedServicer):
    """See proto/tei/v1/tei.proto for what each call promises."""

    def __init__(self, model: TeiModel) -> None:
        self._model = model

    async def Embed(self, request: tei.EmbedRequest, context: Context) -> tei.EmbedResponse:
        """Embeds one text; refused at once when there is no room."""
        started, record, model = time.monotonic(), current_record.get(), self._model.find()
        record.timed = True
        schedule = Schedule(Priority.INTERACTIVE, self._model.deadlines.single(context))
        embedded = await model.embedder.embed([request.inputs], *self._read_options(request, model), schedule)
        record.note(embedded.tokenized, schedule.timings)
        text = EmbeddedText(embedded.vectors[0], int(embedded.tokenized.offsets[-1]), schedule.timings)
        response = messages.write_embedding(text, len(request.inputs), started)
        compute_type = "gpu+optimized" if model.message.engine in GPU_ENGINES else "cpu+optimized"
        await context.send_initial_metadata(messages.write_headers(response.metadata, compute_type))
        return response

    async def EmbedStream(
        self, request_iterator: AsyncIterator[tei.EmbedRequest], context: Context
    ) -> AsyncIterator[tei.EmbedResponse]:
        """Embeds one text after another, in order; the first bad item ends the stream."""
        record, model, deadline = current_record.get(), self._model.find(), stream_deadline(context)

        async def embed(
            texts: Sequence[str], text_options: TextOptions, vector_options: VectorOptions
        ) -> tuple[Embedded, Timings]:
            schedule = Schedule(Priority.BULK, deadline, wait_for_room=True)
            embedded = await model.embedder.embed(texts, text_options, vector_options, schedule)
            record.note(embedded.tokenized, schedule.timings)
            return embedded, schedule.timings

        async def answer(request: tei.EmbedRequest) -> tei.EmbedResponse:
            started = time.monotonic()
            text_options, vector_options = self._read_options(request, model)
            # Now: up to 128 texts wait here, and none that is over the limit shall.
            model.embedder.check([request.inputs], text_options)
            text = await groups.embed(request.inputs, text_options, vector_options)
            return messages.write_embedding(text, len(request.inputs), started)

        groups = TextGroups(embed, model.embedder.limits.max_texts)
        try:
            async for response in answer_in_order(request_iterator, answer, _TEXTS_AT_A_TIME):
                yield response
        finally:
            groups.close()

    def _read_options(self, request: tei.EmbedRequest, model: ServedModel) -> tuple[TextOptions, VectorOptions]:
        text_options = messages.read_text_options(request, self._model.default_prompt)
        return text_options, messages.read_vector_options(request, model.embedder.dimensions)

    EmbedSparse = EmbedAll = refuse
    EmbedSparseStream = EmbedAllStream = refuse_stream
