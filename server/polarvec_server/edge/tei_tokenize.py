"""tei.v1.Tokenize: text to tokens and back, without the encoder."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from polarvec_server.edge import tei_messages as messages
from polarvec_server.edge.deadlines import Context
from polarvec_server.edge.ordered_stream import answer_in_order
from polarvec_server.edge.record import CallRecord, current_record
from polarvec_server.edge.registry import ServedModel
from polarvec_server.edge.tei_model import TeiModel
from polarvec_server.errors import EmptyText, InvalidField
from polarvec_server.tei_proto import tei_pb2 as tei
from polarvec_server.tei_proto import tei_pb2_grpc

# Items of one stream at a time; no more of all streams are worked on, see pipeline/threads.py.
_ITEMS_AT_A_TIME = 4
# Messages for more tokens than this are written in another thread: a million take a second.
_INLINE_TOKENS = 2000


class TokenizeService(tei_pb2_grpc.TokenizeServicer):
    """See proto/tei/v1/tei.proto for what each call promises."""

    def __init__(self, model: TeiModel) -> None:
        self._model = model

    async def Tokenize(self, request: tei.EncodeRequest, context: Context) -> tei.EncodeResponse:
        """Splits a text into tokens."""
        return await self._tokenize(request, *self._begin(), wait_for_room=False)

    async def TokenizeStream(
        self, request_iterator: AsyncIterator[tei.EncodeRequest], context: Context
    ) -> AsyncIterator[tei.EncodeResponse]:
        """Splits one text after another, in order; the first bad item ends the stream."""
        model, record = self._begin()

        async def answer(request: tei.EncodeRequest) -> tei.EncodeResponse:
            return await self._tokenize(request, model, record, wait_for_room=True)

        async for response in answer_in_order(request_iterator, answer, _ITEMS_AT_A_TIME):
            yield response

    async def Decode(self, request: tei.DecodeRequest, context: Context) -> tei.DecodeResponse:
        """Joins tokens to a text."""
        return await self._decode(request, *self._begin(), wait_for_room=False)

    async def DecodeStream(
        self, request_iterator: AsyncIterator[tei.DecodeRequest], context: Context
    ) -> AsyncIterator[tei.DecodeResponse]:
        """Joins one list of tokens after another, in order; the first bad item ends the stream."""
        model, record = self._begin()

        async def answer(request: tei.DecodeRequest) -> tei.DecodeResponse:
            return await self._decode(request, model, record, wait_for_room=True)

        async for response in answer_in_order(request_iterator, answer, _ITEMS_AT_A_TIME):
            yield response

    def _begin(self) -> tuple[ServedModel, CallRecord]:
        model, record = self._model.find(), current_record.get()
        record.embeds = False
        return model, record

    async def _tokenize(
        self, request: tei.EncodeRequest, model: ServedModel, record: CallRecord, *, wait_for_room: bool
    ) -> tei.EncodeResponse:
        if not request.inputs:
            raise EmptyText("inputs", None)
        tokens = await model.embedder.split(
            request.inputs,
            messages.read_text_options(request, self._model.default_prompt),
            special_tokens=request.add_special_tokens,
            wait_for_room=wait_for_room,
        )
        record.text_count += 1
        if len(tokens.ids) < _INLINE_TOKENS:
            return messages.write_tokens(tokens)
        return await asyncio.to_thread(messages.write_tokens, tokens)

    async def _decode(
        self, request: tei.DecodeRequest, model: ServedModel, record: CallRecord, *, wait_for_room: bool
    ) -> tei.DecodeResponse:
        if not request.ids:
            raise InvalidField("ids", "is empty; send at least one token")
        text = await model.embedder.join(
            request.ids, skip_special_tokens=request.skip_special_tokens, wait_for_room=wait_for_room
        )
        record.text_count += 1
        return tei.DecodeResponse(text=text)
