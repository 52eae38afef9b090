"""The models that the doors of one worker answer for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from polarvec_proto.v1 import embedding_pb2 as pb

from polarvec_server.edge.auth import check_model
from polarvec_server.edge.record import current_record
from polarvec_server.errors import TooManyTexts, UnknownModel
from polarvec_server.pipeline.embedder import Embedder

_POOLINGS = {"cls": pb.POOLING_CLS, "mean": pb.POOLING_MEAN, "last_token": pb.POOLING_LAST_TOKEN}


@dataclass(frozen=True, slots=True)
class ModelDescription:
    """What is told about a model."""

    id: str
    revision: str
    architecture: str
    dimensions: int
    trained_dimensions: tuple[int, ...]
    max_tokens: int
    pooling: str
    prompts: Mapping[str, str]
    precision: str
    engine: str
    fingerprint: str


class ServedModel:
    """A model's description beside the embedder that runs it."""

    def __init__(self, description: ModelDescription, embedder: Embedder) -> None:
        self.id = description.id
        self.fingerprint = description.fingerprint
        self.embedder = embedder
        limits = embedder.limits
        self.message = pb.Model(
            id=description.id,
            revision=description.revision,
            architecture=description.architecture,
            dimensions=description.dimensions,
            trained_dimensions=description.trained_dimensions,
            max_token_count=description.max_tokens,
            pooling=_POOLINGS[description.pooling],
            prompts=description.prompts,
            precision=description.precision,
            engine=description.engine,
            fingerprint=description.fingerprint,
            limits=pb.Limits(
                max_text_count=limits.max_texts,
                max_token_count=limits.max_call_tokens,
                max_request_bytes=limits.max_request_bytes,
                max_text_bytes=limits.max_text_bytes,
            ),
        )

    def check_text_count(self, count: int, field: str) -> None:
        """Refuses a list by its length alone, before its strings become Python objects. Raises TooManyTexts."""
        if count > self.embedder.limits.max_texts:
            raise TooManyTexts("text", count, self.embedder.limits.max_texts, field)


class ModelRegistry:
    """Finds models by id."""

    def __init__(self, models: Sequence[ServedModel]) -> None:
        self.models = tuple(models)
        self._by_id = {model.id: model for model in models}

    def find(self, model_id: str) -> ServedModel:
        """Returns a model; an empty id means the default one.

        Raises:
            UnknownModel: There is none of that id.
            PermissionDenied: The call's key may not use it.
        """
        model = self._by_id.get(model_id) if model_id else self.models[0]
        if model is None:
            raise UnknownModel([visible.id for visible in self.visible()])
        check_model(current_record.get().key, model.id)
        return model

    def visible(self) -> list[ServedModel]:
        """Returns the models that the call's key may use, the default one first."""
        key = current_record.get().key
        return [model for model in self.models if key.may_use(model.id)]
