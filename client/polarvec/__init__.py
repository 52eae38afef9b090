"""Client of the Polarvec embedding server: Korean and English text in, numpy arrays out.

from polarvec import Client

with Client("localhost:50051") as client:
    vectors = client.embed_documents(["서울은 대한민국의 수도이다.", "Seoul is the capital of South Korea."])  # (2, D)
"""

from polarvec._async_client import AsyncClient
from polarvec._channel import package_version as _package_version
from polarvec._client import Client
from polarvec._errors import (
    DeadlineExceeded,
    InvalidRequest,
    NotFound,
    Overloaded,
    PermissionDenied,
    PolarvecError,
    ServerError,
    Unauthenticated,
    Unavailable,
)
from polarvec._similarity import cosine_similarity, hamming_similarity
from polarvec._tls import Tls
from polarvec._types import (
    CallTimings,
    EmbeddingResult,
    EmbedOptions,
    Encoding,
    InputType,
    Int8Embeddings,
    Limits,
    Model,
    Priority,
    PromptOptions,
    Ranking,
    RankOptions,
    StreamItem,
    TokenizedText,
    TruncatedText,
    Truncation,
    VectorOptions,
)

__version__ = _package_version()

__all__ = [
    "AsyncClient",
    "CallTimings",
    "Client",
    "DeadlineExceeded",
    "EmbedOptions",
    "EmbeddingResult",
    "Encoding",
    "InputType",
    "Int8Embeddings",
    "InvalidRequest",
    "Limits",
    "Model",
    "NotFound",
    "Overloaded",
    "PermissionDenied",
    "PolarvecError",
    "Priority",
    "PromptOptions",
    "RankOptions",
    "Ranking",
    "ServerError",
    "StreamItem",
    "Tls",
    "TokenizedText",
    "TruncatedText",
    "Truncation",
    "Unauthenticated",
    "Unavailable",
    "VectorOptions",
    "__version__",
    "cosine_similarity",
    "hamming_similarity",
]
