"""What callers pass in and get back; plain data, no protobuf and no I/O."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias, TypedDict

import numpy as np
from numpy.typing import NDArray

from polarvec._errors import PolarvecError

InputType: TypeAlias = Literal["query", "document", "raw"]
Encoding: TypeAlias = Literal["float32", "float16", "int8", "binary"]
Truncation: TypeAlias = Literal["error", "end", "start"]
Priority: TypeAlias = Literal["interactive", "bulk"]

# Not Sequence[str], because a str is one too, and gives a vector where a list gives a matrix.
Texts: TypeAlias = list[str] | tuple[str, ...]
ArrayEncoding: TypeAlias = Literal["float32", "float16", "binary"]
Vector: TypeAlias = np.ndarray[tuple[int], np.dtype[Any]]
Matrix: TypeAlias = np.ndarray[tuple[int, int], np.dtype[Any]]


class PromptOptions(TypedDict, total=False):
    """Keyword options of every call that puts a prompt before a text."""

    model: str
    """A model id of `models()`; empty means the server's default model."""
    prompt_name: str | None
    """One of the model's prompts, in place of the one that the input type selects."""
    prompt_text: str | None
    """A literal prefix, in place of the prompt that the input type selects."""


class VectorOptions(PromptOptions, total=False):
    """Keyword options of every call that gives vectors."""

    dimensions: int
    """Leading dimensions to keep, brought to unit length again; 0 means all."""
    truncation: Truncation
    """What happens to a text that is too long: "error" (the default) refuses it, "end" or "start" cuts there."""
    unnormalized: bool
    """Leaves the vectors as pooled instead of at unit length."""
    priority: Priority | None
    """Who goes first on a busy server; by default queries are interactive and everything else is bulk."""


class EmbedOptions(VectorOptions, total=False):
    """Keyword options of `embed_queries` and `embed_documents`, beside `encoding`."""

    timeout_s: float | None
    """Seconds that one gRPC call may take, waits and retries included; the client's `timeout_s` if not given."""
    traceparent: str | None
    """The W3C trace that the call belongs to; OpenTelemetry's current one, if the program uses it, if not given."""
    progress: bool
    """Shows a tqdm bar (the extra `polarvec[progress]`)."""


class RankOptions(TypedDict, total=False):
    """Keyword options of `rank`."""

    model: str
    """A model id of `models()`; empty means the server's default model."""
    dimensions: int
    """Leading dimensions to compare by; 0 means all."""
    truncation: Truncation
    """What happens to a text that is too long: "error" (the default) refuses it, "end" or "start" cuts there."""
    priority: Priority | None
    """Who goes first on a busy server; interactive by default."""


@dataclass(frozen=True, slots=True, eq=False)
class Int8Embeddings:
    """Vectors of signed bytes with one scale a vector: number = byte * scale."""

    values: NDArray[np.int8]
    """(N, D) int8; (D,) for a single text."""
    scales: NDArray[np.float32]
    """(N,) float32; () for a single text."""

    def to_float32(self) -> NDArray[np.float32]:
        """The vectors as float32, in the shape of `values`."""
        return self.values.astype(np.float32) * self.scales[..., np.newaxis]

    def __len__(self) -> int:
        """Rows of `values`."""
        return len(self.values)


Embeddings: TypeAlias = NDArray[np.float32] | NDArray[np.float16] | NDArray[np.uint8] | Int8Embeddings


@dataclass(frozen=True, slots=True)
class TruncatedText:
    """A text that was cut before it was embedded."""

    index: int
    """Its place in the call, from 0."""
    token_count: int
    """The tokens it had before the cut."""


@dataclass(frozen=True, slots=True)
class CallTimings:
    """Where the server spent the time of one gRPC call; None where it did not say."""

    request_id: str
    queue_ms: float | None
    tokenize_ms: float | None
    inference_ms: float | None


@dataclass(frozen=True, slots=True, eq=False)
class EmbeddingResult:
    """Vectors with everything that the server said about them."""

    embeddings: Embeddings
    """(N, D), or (D,) for a single text; packed bits for encoding="binary": (N, D/8) uint8."""
    model: str
    """The model that made them."""
    fingerprint: str
    """The embedding space; vectors of different fingerprints must not be compared."""
    dimensions: int
    """Numbers a vector."""
    encoding: Encoding
    """How the numbers are written."""
    token_counts: tuple[int, ...]
    """Tokens read of each text, prompt and special tokens included."""
    truncated: tuple[TruncatedText, ...]
    """The texts that were cut."""
    calls: tuple[CallTimings, ...]
    """One a gRPC call; a long list of texts takes several."""


@dataclass(frozen=True, slots=True, eq=False)
class StreamItem:
    """What became of one text of `embed_stream`: either `embedding` or `error` is set."""

    index: int
    """The text's place in the input, from 0."""
    embedding: Embeddings | None = None
    """(D,), or (D/8,) uint8 for encoding="binary"."""
    error: PolarvecError | None = None
    """Why there is none."""
    token_count: int = 0
    """Tokens read, prompt and special tokens included."""
    fingerprint: str = ""
    """The embedding space."""


@dataclass(frozen=True, slots=True, eq=False)
class Ranking:
    """Documents for one query, best first; iterating gives (index, score) pairs."""

    document_indexes: NDArray[np.int32]
    """(K,) int32: places in the list of documents, from 0."""
    scores: NDArray[np.float32]
    """(K,) float32: cosine similarities, -1 to 1."""

    def __len__(self) -> int:
        """Documents named."""
        return len(self.document_indexes)

    def __iter__(self) -> Iterator[tuple[int, float]]:
        """(document index, score), best first."""
        return zip(self.document_indexes.tolist(), self.scores.tolist(), strict=True)


@dataclass(frozen=True, slots=True)
class TokenizedText:
    """The tokens of one text."""

    token_count: int
    """Tokens, prompt and special tokens included."""
    too_long: bool
    """Whether this is more than the model reads."""
    token_ids: tuple[int, ...] = ()
    """The ids, if asked for."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What one gRPC call may hold; 0 means that the server named no limit."""

    max_text_count: int = 0
    max_token_count: int = 0
    max_request_bytes: int = 0
    max_text_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Model:
    """What a caller may want to know of a model."""

    id: str
    revision: str
    architecture: str
    dimensions: int
    trained_dimensions: tuple[int, ...]
    """Shorter dimensions that the model was trained for, most first."""
    max_token_count: int
    """The most tokens that it reads of a text, special tokens included."""
    pooling: str
    """Which vector stands for a text: "cls", "mean" or "last_token"."""
    precision: str
    engine: str
    fingerprint: str
    """A hash over what decides the vectors; vectors of different fingerprints must not be compared."""
    prompts: Mapping[str, str] = field(default_factory=dict, hash=False)
    limits: Limits = field(default_factory=Limits)
