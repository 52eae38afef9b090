"""The methods of tei.v1 for which there is no model here: each answers UNIMPLEMENTED with a sentence."""

from __future__ import annotations

from collections.abc import AsyncIterator

from polarvec_server.edge.deadlines import Context
from polarvec_server.errors import UnsupportedMethod
from polarvec_server.tei_proto import tei_pb2_grpc


async def refuse(service: object, request: object, context: Context) -> None:
    """A method with one answer. Raises UnsupportedMethod."""
    raise UnsupportedMethod


async def refuse_stream(service: object, requests: object, context: Context) -> AsyncIterator[None]:
    """A method with many answers. Raises UnsupportedMethod."""
    raise UnsupportedMethod
    # What makes this a generator, as grpc wants it.
    yield


class PredictService(tei_pb2_grpc.PredictServicer):
    """tei.v1.Predict: classifiers."""

    Predict = PredictPair = refuse
    PredictStream = PredictPairStream = refuse_stream


class RerankService(tei_pb2_grpc.RerankServicer):
    """tei.v1.Rerank: cross-encoders."""

    Rerank = RerankStream = refuse
