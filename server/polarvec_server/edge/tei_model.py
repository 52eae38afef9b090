"""The model that tei.v1 is in front of: text-embeddings-inference serves one, so it is the default one."""

from __future__ import annotations

import time
from typing import Any

import grpc

from polarvec_server.edge.record import current_record
from polarvec_server.edge.registry import ModelRegistry, ServedModel
from polarvec_server.errors import ConfigError

Context = grpc.aio.ServicerContext[Any, Any]


class TeiModel:
    """What the services of tei.v1 have in common."""

    def __init__(
        self, registry: ModelRegistry, *, default_prompt: str, default_deadline_s: float, max_deadline_s: float
    ) -> None:
        """Keeps what it works with.

        Args:
            registry: Its default model is served.
            default_prompt: Name of the prompt of calls that name none; empty for none.
            default_deadline_s: Deadline of a single call that brings none.
            max_deadline_s: Longest deadline of a single call.

        Raises:
            ConfigError: The default model has no such prompt.
        """
        prompts = registry.models[0].message.prompts
        if default_prompt and default_prompt not in prompts:
            known = ", ".join(sorted(prompts)) or "none"
            raise ConfigError(f"POLARVEC_TEI_PROMPT_NAME: the default model has no {default_prompt}; it has: {known}.")
        self.default_prompt = default_prompt
        self._registry = registry
        self._default_deadline_s, self._max_deadline_s = default_deadline_s, max_deadline_s

    def find(self) -> ServedModel:
        """Returns the model and notes it. Raises PermissionDenied if the call's key may not use it."""
        model = self._registry.find("")
        current_record.get().model = model.id
        return model

    def deadline(self, context: Context) -> float:
        """Returns when a single call ends, on the clock of time.monotonic."""
        left = context.time_remaining()
        return time.monotonic() + min(self._default_deadline_s if left is None else left, self._max_deadline_s)


def stream_deadline(context: Context) -> float | None:
    """Returns when a stream ends: it has a deadline only if its caller set one."""
    left = context.time_remaining()
    return None if left is None else time.monotonic() + left
