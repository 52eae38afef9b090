"""An encoder for the benchmark mteb on a Polarvec server: the extra `polarvec[mteb]`.

from polarvec.mteb import PolarvecEncoder

mteb.evaluate(PolarvecEncoder("localhost:50051"), tasks)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from polarvec._client import Client
from polarvec._extras import extra
from polarvec._targets import DEFAULT_TARGET
from polarvec._types import Embeddings, Encoding, InputType, Int8Embeddings, Model, Truncation

with extra("mteb", "mteb"):
    from mteb.models.abs_encoder import AbsEncoder
    from mteb.models.model_meta import ModelMeta, ScoringFunction
    from mteb.types import PromptType

if TYPE_CHECKING:
    from mteb.abstasks.task_metadata import TaskMetadata
    from mteb.types import BatchedInput
    from torch.utils.data import DataLoader

__all__ = ["PolarvecEncoder"]

# What mteb itself says where it knows no organisation; a model's name must have one.
_ORGANISATION = "polarvec"


class PolarvecEncoder(AbsEncoder):
    """The server's model as mteb sees one; the prompts are the server's, chosen by mteb's prompt type.

    `mteb_model_meta` names the model and its revision, and keeps the fingerprint and the options apart, so that a
    result cache never answers for another embedding space.
    """

    def __init__(
        self,
        target: str | list[str] = DEFAULT_TARGET,
        *,
        model: str = "",
        dimensions: int = 0,
        encoding: Encoding = "float32",
        truncation: Truncation = "end",
        symmetric_input_type: InputType = "raw",
        timeout_s: float = 300.0,
        **client_options: Any,
    ) -> None:
        """Asks the server what the model is.

        Args:
            target: host:port of a server, or of several.
            model: A model id; the server's default if empty.
            dimensions: Leading dimensions to keep; 0 means all.
            encoding: What the vectors are sent as; mteb gets them as float32 again, with what the encoding lost.
            truncation: Benchmarks cut long texts at the end, and so does this; "error" refuses them.
            symmetric_input_type: For tasks without sides, such as classification and clustering: mteb's own models put
                no prompt there, where E5's card would have "query".
            timeout_s: Seconds that one gRPC call may take.
            **client_options: The other arguments of Client, such as `api_key`.

        Raises:
            PolarvecError: The server cannot be reached or has no such model.
        """
        self._client = Client(target, timeout_s=timeout_s, **client_options)
        self._options: dict[str, Any] = {"dimensions": dimensions, "truncation": truncation, "encoding": encoding}
        self._input_types: dict[PromptType | None, InputType] = {
            PromptType.query: "query",
            PromptType.document: "document",
            None: symmetric_input_type,
        }
        served = self._client.model(model)
        self._model = served.id
        self.mteb_model_meta = _meta(served, self._options)

    def encode(
        self,
        inputs: DataLoader[BatchedInput],
        *,
        task_metadata: TaskMetadata,
        hf_split: str,
        hf_subset: str,
        prompt_type: PromptType | None = None,
        **kwargs: Any,
    ) -> NDArray[np.float32]:
        """Embeds every text of `inputs`.

        Args:
            inputs: Batches with the key "text".
            task_metadata: Not used: the server knows the prompts.
            hf_split: Not used.
            hf_subset: Not used.
            prompt_type: Query or document; None in tasks without sides.
            **kwargs: `show_progress_bar` is heeded; `precision` must be float32, because `encoding` is the option for
                that; the batches are the SDK's.

        Returns:
            (N, D) float32.

        Raises:
            ValueError: Another precision is asked for.
        """
        if kwargs.get("precision") not in (None, "float32"):
            raise ValueError("precision is fixed when the encoder is made: PolarvecEncoder(..., encoding='int8')")
        texts = [text for batch in inputs for text in batch["text"]]
        embeddings = self._client.embed(
            texts,
            input_type=self._input_types[prompt_type],
            model=self._model,
            progress=bool(kwargs.get("show_progress_bar")),
            **self._options,
        )
        return _float32(embeddings)

    def close(self) -> None:
        """Ends the connection."""
        self._client.close()


def _meta(served: Model, options: dict[str, Any]) -> ModelMeta:
    name = served.id if "/" in served.id else f"{_ORGANISATION}/{served.id}"
    details = {"fingerprint": served.fingerprint, "precision": served.precision}
    return ModelMeta.create_empty(
        overwrites={
            "name": name,
            "revision": served.revision or served.fingerprint,
            "similarity_fn_name": ScoringFunction.COSINE,
            "modalities": ["text"],
            "embed_dim": options["dimensions"] or served.dimensions,
            "max_tokens": served.max_token_count,
            "use_instructions": bool(served.prompts),
            "experiment_kwargs": details | options,
        }
    )


def _float32(embeddings: Embeddings) -> NDArray[np.float32]:
    """The vectors as numbers: binary ones as +1 and -1."""
    if isinstance(embeddings, Int8Embeddings):
        return embeddings.to_float32()
    if embeddings.dtype == np.uint8:
        return np.unpackbits(embeddings.view(np.uint8), axis=-1).astype(np.float32) * 2 - 1
    return embeddings.astype(np.float32, copy=False)
