"""The door tei.v1: the gRPC interface of text-embeddings-inference, in front of the default model."""

from __future__ import annotations

from importlib.metadata import version

import grpc

from polarvec_server.edge import tei_messages as messages
from polarvec_server.edge.deadlines import Context
from polarvec_server.edge.tei_embed import EmbedService
from polarvec_server.edge.tei_model import TeiModel
from polarvec_server.edge.tei_refusals import PredictService, RerankService
from polarvec_server.edge.tei_tokenize import TokenizeService
from polarvec_server.tei_proto import tei_pb2 as tei
from polarvec_server.tei_proto import tei_pb2_grpc

SERVICE_NAMES = tuple(service.full_name for service in tei.DESCRIPTOR.services_by_name.values())


def add_tei_services(server: grpc.aio.Server, model: TeiModel, tokenizer_threads: int) -> None:
    """Registers the five services.

    Args:
        server: Where they go.
        model: What they serve.
        tokenizer_threads: How many there are, to tell.
    """
    tei_pb2_grpc.add_InfoServicer_to_server(InfoService(model, tokenizer_threads), server)  # type: ignore[no-untyped-call]
    tei_pb2_grpc.add_EmbedServicer_to_server(EmbedService(model), server)  # type: ignore[no-untyped-call]
    tei_pb2_grpc.add_TokenizeServicer_to_server(TokenizeService(model), server)  # type: ignore[no-untyped-call]
    tei_pb2_grpc.add_PredictServicer_to_server(PredictService(), server)  # type: ignore[no-untyped-call]
    tei_pb2_grpc.add_RerankServicer_to_server(RerankService(), server)  # type: ignore[no-untyped-call]


class InfoService(tei_pb2_grpc.InfoServicer):
    """tei.v1.Info."""

    def __init__(self, model: TeiModel, tokenizer_threads: int) -> None:
        self._model, self._tokenizer_threads = model, tokenizer_threads
        self._version = version("polarvec-server")

    async def Info(self, request: tei.InfoRequest, context: Context) -> tei.InfoResponse:
        """Describes the model and its limits."""
        served = self._model.find()
        model, embedder = served.message, served.embedder
        return tei.InfoResponse(
            version=self._version,
            model_id=model.id,
            model_sha=model.revision or None,
            model_dtype=messages.dtype_name(model.precision),
            model_type=tei.MODEL_TYPE_EMBEDDING,
            max_concurrent_requests=embedder.longest_text_count,
            max_input_length=embedder.max_tokens,
            # A text that is longer than a pack goes alone.
            max_batch_tokens=max(embedder.pack_tokens, embedder.max_tokens),
            max_client_batch_size=embedder.limits.max_texts,
            tokenization_workers=self._tokenizer_threads,
        )
