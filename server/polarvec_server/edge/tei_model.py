"""The model that tei.v1 is in front of: text-embeddings-inference serves one, so it is the default one."""

from __future__ import annotations

from polarvec_server.edge.deadlines import Deadlines
from polarvec_server.edge.record import current_record
from polarvec_server.edge.registry import ModelRegistry, ServedModel
from polarvec_server.errors import ConfigError


class TeiModel:
    """What the services of tei.v1 have in common."""

    def __init__(self, registry: ModelRegistry, deadlines: Deadlines, *, default_prompt: str) -> None:
        """Keeps what it works with.

        Args:
            registry: Its default model is served.
            deadlines: Of single calls.
            default_prompt: Name of the prompt of calls that name none; empty for none.

        Raises:
            ConfigError: The default model has no such prompt.
        """
        prompts = registry.models[0].message.prompts
        if default_prompt and default_prompt not in prompts:
            known = ", ".join(sorted(prompts)) or "none"
            raise ConfigError(f"POLARVEC_TEI_PROMPT_NAME: the default model has no {default_prompt}; it has: {known}.")
        self.deadlines, self.default_prompt = deadlines, default_prompt
        self._registry = registry

    def find(self) -> ServedModel:
        """Returns the model and notes it. Raises PermissionDenied if the call's key may not use it."""
        model = self._registry.find("")
        current_record.get().model = model.id
        return model
