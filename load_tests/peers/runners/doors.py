"""The ways of the load generator into the contestants' servers, all on one event loop."""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections.abc import Sequence

import aiohttp
import numpy as np
import polarvec
from http_client import request_body, vectors_of
from tokenizers import Tokenizer
from tritonclient.grpc import InferInput
from tritonclient.grpc.aio import InferenceServerClient
from tritonclient.utils import InferenceServerException


class Door(ABC):
    """One contestant's client."""

    expected_errors: tuple[type[Exception], ...] = ()
    """What a call raises when the server refuses it or is away."""

    @abstractmethod
    async def embed(self, kind: str, texts: Sequence[str]) -> np.ndarray:
        """Embeds the texts of one call, `kind` being query or document; (N, D) float32."""

    @abstractmethod
    async def close(self) -> None:
        """Ends the connections."""


class SdkDoor(Door):
    """Polarvec's own client; the server puts the prompts before the texts."""

    expected_errors = (polarvec.PolarvecError,)

    def __init__(self, job: dict) -> None:
        self._client = polarvec.AsyncClient(job["address"], timeout_s=job["timeout_s"])

    async def embed(self, kind: str, texts: Sequence[str]) -> np.ndarray:
        method = self._client.embed_queries if kind == "query" else self._client.embed_documents
        return await method(texts, truncation="end")

    async def close(self) -> None:
        await self._client.close()


class HttpDoor(Door):
    """An OpenAI-like /embeddings; as many connections as there are open calls."""

    expected_errors = (aiohttp.ClientError,)

    def __init__(self, job: dict) -> None:
        self._url, self._prompts = job["address"], job["prompts"]
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0), headers={"Content-Type": "application/json"}, raise_for_status=True
        )

    async def embed(self, kind: str, texts: Sequence[str]) -> np.ndarray:
        body = request_body("peer", [self._prompts[kind] + text for text in texts])
        async with self._session.post(self._url, data=body) as answer:
            return vectors_of(await answer.read())

    async def close(self) -> None:
        await self._session.close()


class TritonDoor(Door):
    """tritonclient on the tritonserver itself: prompts, tokenizes, joins and normalises here, on the event loop.

    Nothing limits, orders or refuses what it sends.
    """

    expected_errors = (InferenceServerException,)

    def __init__(self, job: dict) -> None:
        self._prompts = job["prompts"]
        self._tokenizer = Tokenizer.from_file(job["tokenizer_file"])
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        self._client = InferenceServerClient(job["address"])

    async def embed(self, kind: str, texts: Sequence[str]) -> np.ndarray:
        encoded = self._tokenizer.encode_batch_fast([self._prompts[kind] + text for text in texts])
        ids = [encoding.ids for encoding in encoded]
        lengths = np.fromiter(map(len, ids), np.int32, len(ids))
        token_ids = np.fromiter(itertools.chain.from_iterable(ids), np.int32, int(lengths.sum()))
        inputs = [
            _tensor("token_ids", token_ids[None], "INT32"),
            _tensor("lengths", lengths[None], "INT32"),
            _tensor("tag", np.zeros((1, 1), np.int64), "INT64"),
        ]
        vectors = (await self._client.infer("encoder_0", inputs)).as_numpy("embeddings")[0]
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)

    async def close(self) -> None:
        await self._client.close()


def _tensor(name: str, values: np.ndarray, datatype: str) -> InferInput:
    made = InferInput(name, list(values.shape), datatype)
    made.set_data_from_numpy(values)
    return made


def open_door(job: dict) -> Door:
    """Makes the client that the job names; connects with its first call."""
    return {"sdk": SdkDoor, "http": HttpDoor, "triton": TritonDoor}[job["door"]](job)
