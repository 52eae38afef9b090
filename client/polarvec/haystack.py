"""Haystack's embedders on a Polarvec server: the extra `polarvec[haystack]`.

from polarvec.haystack import PolarvecDocumentEmbedder, PolarvecTextEmbedder

pipeline.add_component("embedder", PolarvecTextEmbedder("localhost:50051"))
"""

from __future__ import annotations

from dataclasses import fields, replace
from os import fspath
from typing import Any, Self

import numpy as np

from polarvec._adapter_clients import AdapterClients
from polarvec._extras import extra
from polarvec._targets import DEFAULT_TARGET
from polarvec._tls import Tls
from polarvec._types import EmbeddingResult, Truncation, VectorOptions

with extra("haystack", "haystack"):
    from haystack import Document, component, default_from_dict, default_to_dict
    from haystack.utils import Secret

__all__ = ["PolarvecDocumentEmbedder", "PolarvecTextEmbedder"]

_API_KEY = Secret.from_env_var("POLARVEC_API_KEY", strict=False)


class _Embedder:
    """What both components share: their options, their clients, how they are written down."""

    def __init__(
        self,
        target: str | list[str] = DEFAULT_TARGET,
        *,
        model: str = "",
        dimensions: int = 0,
        truncation: Truncation = "error",
        api_key: Secret | None = _API_KEY,
        tls: Tls | dict[str, str | None] | None = None,
        timeout_s: float = 30.0,
    ) -> None:
        """Connects to nothing yet.

        Args:
            target: host:port of a server, or of several.
            model: A model id; the server's default if empty.
            dimensions: Leading dimensions to keep; 0 means all.
            truncation: What happens to a text that is too long: "error" refuses it, "end" or "start" cuts there.
            api_key: Sent as a bearer token; by default what POLARVEC_API_KEY holds, or none.
            tls: Encrypts the connection; a dictionary of Tls's arguments will do; plain text if None.
            timeout_s: Seconds that one gRPC call may take.
        """
        self.target, self.model, self.dimensions, self.truncation = target, model, dimensions, truncation
        self.api_key, self.timeout_s = api_key, timeout_s
        self.tls: Tls | None = Tls(**tls) if isinstance(tls, dict) else tls
        self._clients: AdapterClients | None = None

    def warm_up(self) -> None:
        """Reads the key; the connection opens with the first call."""
        if self._clients is None:
            key = self.api_key.resolve_value() if self.api_key is not None else None
            self._clients = AdapterClients(self.target, api_key=key, tls=self.tls, timeout_s=self.timeout_s)

    def close(self) -> None:
        """Ends the connection of `run`; the next call opens one again."""
        if self._clients is not None:
            self._clients.close()

    async def close_async(self) -> None:
        """Ends the connection of `run_async`; the next call opens one again."""
        if self._clients is not None:
            await self._clients.aclose()

    def to_dict(self) -> dict[str, Any]:
        """The component as a pipeline is stored: the name of the key's variable, never the key."""
        return default_to_dict(self, **self._init_parameters())

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Self:
        """The component of a stored pipeline."""
        return default_from_dict(cls, data)

    def _init_parameters(self) -> dict[str, Any]:
        return {
            "target": self.target,
            "model": self.model,
            "dimensions": self.dimensions,
            "truncation": self.truncation,
            "api_key": self.api_key,
            "tls": _stored_tls(self.tls),
            "timeout_s": self.timeout_s,
        }

    def _options(self) -> VectorOptions:
        return VectorOptions(model=self.model, dimensions=self.dimensions, truncation=self.truncation)

    def _open(self) -> AdapterClients:
        self.warm_up()
        assert self._clients is not None  # warm_up made them  # noqa: S101
        return self._clients


@component
class PolarvecTextEmbedder(_Embedder):
    """Embeds a query, with the model's prompt for queries."""

    @component.output_types(embedding=list[float], meta=dict[str, Any])
    def run(self, text: str) -> dict[str, Any]:
        """Gives `embedding`, D numbers of unit length, and `meta`.

        Args:
            text: The query.
        """
        result = self._open().blocking().embed_detailed(_checked(text), input_type="query", **self._options())
        return {"embedding": _numbers(result), "meta": _meta(result)}

    @component.output_types(embedding=list[float], meta=dict[str, Any])
    async def run_async(self, text: str) -> dict[str, Any]:
        """Like `run`, for asyncio.

        Args:
            text: The query.
        """
        result = await self._open().of_loop().embed_detailed(_checked(text), input_type="query", **self._options())
        return {"embedding": _numbers(result), "meta": _meta(result)}


@component
class PolarvecDocumentEmbedder(_Embedder):
    """Embeds documents, with the model's prompt for documents."""

    def __init__(
        self,
        target: str | list[str] = DEFAULT_TARGET,
        *,
        model: str = "",
        dimensions: int = 0,
        truncation: Truncation = "error",
        meta_fields_to_embed: list[str] | None = None,
        embedding_separator: str = "\n",
        progress_bar: bool = False,
        api_key: Secret | None = _API_KEY,
        tls: Tls | dict[str, str | None] | None = None,
        timeout_s: float = 30.0,
    ) -> None:
        """Connects to nothing yet.

        Args:
            target: host:port of a server, or of several.
            model: A model id; the server's default if empty.
            dimensions: Leading dimensions to keep; 0 means all.
            truncation: What happens to a document that is too long: "error" refuses it, "end" or "start" cuts there.
            meta_fields_to_embed: Metadata that goes before a document's content.
            embedding_separator: What stands between these fields and the content.
            progress_bar: Shows a tqdm bar.
            api_key: Sent as a bearer token; by default what POLARVEC_API_KEY holds, or none.
            tls: Encrypts the connection; a dictionary of Tls's arguments will do; plain text if None.
            timeout_s: Seconds that one gRPC call may take.
        """
        # `component` makes the class anew, which super() does not survive.
        _Embedder.__init__(
            self,
            target,
            model=model,
            dimensions=dimensions,
            truncation=truncation,
            api_key=api_key,
            tls=tls,
            timeout_s=timeout_s,
        )
        self.meta_fields_to_embed = meta_fields_to_embed or []
        self.embedding_separator = embedding_separator
        self.progress_bar = progress_bar

    @component.output_types(documents=list[Document], meta=dict[str, Any])
    def run(self, documents: list[Document]) -> dict[str, Any]:
        """Gives `documents`, copies with their embeddings, and `meta`.

        Args:
            documents: In any number; the SDK cuts them into calls.
        """
        texts = self._texts(documents)
        if not texts:
            return {"documents": [], "meta": {}}
        client = self._open().blocking()
        result = client.embed_detailed(texts, input_type="document", progress=self.progress_bar, **self._options())
        return {"documents": _embedded(documents, result), "meta": _meta(result)}

    @component.output_types(documents=list[Document], meta=dict[str, Any])
    async def run_async(self, documents: list[Document]) -> dict[str, Any]:
        """Like `run`, for asyncio.

        Args:
            documents: In any number; the SDK cuts them into calls.
        """
        texts = self._texts(documents)
        if not texts:
            return {"documents": [], "meta": {}}
        client = self._open().of_loop()
        result = await client.embed_detailed(
            texts, input_type="document", progress=self.progress_bar, **self._options()
        )
        return {"documents": _embedded(documents, result), "meta": _meta(result)}

    def _init_parameters(self) -> dict[str, Any]:
        return _Embedder._init_parameters(self) | {
            "meta_fields_to_embed": self.meta_fields_to_embed,
            "embedding_separator": self.embedding_separator,
            "progress_bar": self.progress_bar,
        }

    def _texts(self, documents: list[Document]) -> list[str]:
        if not isinstance(documents, list) or not all(isinstance(document, Document) for document in documents):
            raise TypeError("PolarvecDocumentEmbedder takes a list of Documents; PolarvecTextEmbedder takes a str")
        return [self._text(document) for document in documents]

    def _text(self, document: Document) -> str:
        fields = [document.meta.get(name) for name in self.meta_fields_to_embed]
        parts = [str(field) for field in fields if field is not None]
        return self.embedding_separator.join([*parts, document.content or ""])


def _checked(text: str) -> str:
    if not isinstance(text, str):
        raise TypeError("PolarvecTextEmbedder takes a str; PolarvecDocumentEmbedder takes a list of Documents")
    return text


def _embedded(documents: list[Document], result: EmbeddingResult) -> list[Document]:
    return [replace(document, embedding=row) for document, row in zip(documents, _numbers(result), strict=True)]


def _numbers(result: EmbeddingResult) -> Any:
    return np.asarray(result.embeddings).tolist()


def _meta(result: EmbeddingResult) -> dict[str, Any]:
    token_count = sum(result.token_counts)
    usage = {"prompt_tokens": token_count, "total_tokens": token_count}
    return {"model": result.model, "fingerprint": result.fingerprint, "usage": usage}


def _stored_tls(tls: Tls | None) -> dict[str, str | None] | None:
    """Where the certificates lie.

    Raises:
        ValueError: They are given as bytes, and a stored pipeline is no place for a key.
    """
    if tls is None:
        return None
    parts = {field.name: getattr(tls, field.name) for field in fields(tls)}
    if any(isinstance(part, bytes) for part in parts.values()):
        raise ValueError("certificates given as bytes cannot be stored; give Tls the paths of files")
    return {name: None if part is None else fspath(part) for name, part in parts.items()}
