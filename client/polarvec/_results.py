"""Response messages to what the caller gets: the last step of a call, without any I/O."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from polarvec_proto.v1 import embedding_pb2 as pb

from polarvec import _codec
from polarvec._batching import Batch
from polarvec._errors import ServerError
from polarvec._types import CallTimings, EmbeddingResult, Encoding, Limits, Model, Ranking, TokenizedText, TruncatedText

_POOLINGS = {pb.POOLING_CLS: "cls", pb.POOLING_MEAN: "mean", pb.POOLING_LAST_TOKEN: "last_token"}


@dataclass(frozen=True, slots=True)
class EmbedPart:
    """The answer to one batch."""

    batch: Batch
    response: pb.EmbedResponse
    timings: CallTimings


class EmbedParts:
    """The parts of one call, in order; what they hold is read as they come, and they are let go."""

    def __init__(self, text_count: int) -> None:
        """Starts empty."""
        self._joined = _codec.Joined(text_count)
        self._token_counts: list[int] = []
        self._truncated: list[TruncatedText] = []
        self._calls: list[CallTimings] = []
        self._fingerprint = self._model = ""
        self._dimensions = 0
        self._encoding: Encoding = "float32"

    def append(self, part: EmbedPart) -> None:
        """Reads the next part.

        Raises:
            ServerError: It cannot be read, or comes from another embedding space than the first.
        """
        response, batch = part.response, part.batch
        if not self._calls:
            self._fingerprint, self._model = response.fingerprint, response.model
            self._dimensions, self._encoding = response.dimensions, _codec.encoding_name(response)
        elif response.fingerprint != self._fingerprint:
            raise changed_fingerprint()
        self._joined.add(_codec.decode(response, len(batch.texts)))
        self._token_counts += token_counts(response, len(batch.texts))
        self._truncated += [TruncatedText(batch.indexes[text.index], text.token_count) for text in response.truncated]
        self._calls.append(part.timings)

    def result(self, *, single: bool) -> EmbeddingResult:
        """All of it, once every part is there."""
        embeddings = self._joined.embeddings
        return EmbeddingResult(
            embeddings=_codec.row(embeddings, 0) if single else embeddings,
            model=self._model,
            fingerprint=self._fingerprint,
            dimensions=self._dimensions,
            encoding=self._encoding,
            token_counts=tuple(self._token_counts),
            truncated=tuple(self._truncated),
            calls=tuple(self._calls),
        )


def token_counts(response: pb.EmbedResponse, text_count: int) -> Sequence[int]:
    """Tokens read of each text.

    Raises:
        ServerError: There are more or fewer than texts.
    """
    if len(response.token_counts) != text_count:
        raise ServerError(f"The server counted the tokens of {len(response.token_counts)} of {text_count} texts.")
    return response.token_counts


def changed_fingerprint() -> ServerError:
    """The server changed its model between two answers."""
    return ServerError("The server's model changed during the call, so its vectors do not go together; call again.")


def call_timings(trailers: Iterable[Any] | None) -> CallTimings:
    """The timings in a call's trailing metadata."""
    values = {key: value for key, value in trailers or () if isinstance(value, str)}
    return CallTimings(
        request_id=values.get("x-request-id", ""),
        queue_ms=_milliseconds(values.get("x-queue-ms")),
        tokenize_ms=_milliseconds(values.get("x-tokenize-ms")),
        inference_ms=_milliseconds(values.get("x-inference-ms")),
    )


def rankings(response: pb.RankResponse, query_count: int) -> list[Ranking]:
    """One ranking a query.

    Raises:
        ServerError: There are more or fewer than queries.
    """
    if len(response.rankings) != query_count:
        raise ServerError(f"The server ranked for {len(response.rankings)} of {query_count} queries; report this.")
    return [
        Ranking(np.array(ranking.document_indexes, dtype=np.int32), np.array(ranking.scores, dtype=np.float32))
        for ranking in response.rankings
    ]


def tokenized_texts(response: pb.TokenizeResponse, text_count: int) -> list[TokenizedText]:
    """The counts of one response.

    Raises:
        ServerError: There are more or fewer than texts.
    """
    if len(response.texts) != text_count:
        raise ServerError(f"The server counted {len(response.texts)} of {text_count} texts; report this.")
    return [TokenizedText(text.token_count, text.too_long, tuple(text.token_ids)) for text in response.texts]


def model_from(message: pb.Model) -> Model:
    """A model as plain data."""
    limits = message.limits
    return Model(
        id=message.id,
        revision=message.revision,
        architecture=message.architecture,
        dimensions=message.dimensions,
        trained_dimensions=tuple(message.trained_dimensions),
        max_token_count=message.max_token_count,
        pooling=_POOLINGS.get(message.pooling, "unknown"),
        precision=message.precision,
        engine=message.engine,
        fingerprint=message.fingerprint,
        prompts=dict(message.prompts),
        limits=Limits(
            max_text_count=limits.max_text_count,
            max_token_count=limits.max_token_count,
            max_request_bytes=limits.max_request_bytes,
            max_text_bytes=limits.max_text_bytes,
        ),
    )


def _milliseconds(text: str | None) -> float | None:
    try:
        return float(text) if text is not None else None
    except ValueError:
        return None
