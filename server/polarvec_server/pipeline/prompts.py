"""Chooses the prefix that goes before a text: the first stage after admission."""

from __future__ import annotations

from collections.abc import Mapping

from polarvec_server.errors import InvalidText, UnknownPrompt
from polarvec_server.pipeline.values import InputType, TextOptions

# The names under which models keep their prompts, in the order in which they are looked for.
_PROMPT_NAMES = {InputType.QUERY: ("query",), InputType.DOCUMENT: ("document", "passage"), InputType.RAW: ()}
_MAX_PROMPT_CHARACTERS = 4096


def choose_prompt(prompts: Mapping[str, str], options: TextOptions) -> str:
    """Returns the prefix for texts with these options; empty if the model has none for the input type.

    Raises:
        UnknownPrompt: The model has no prompt of the name asked for.
        InvalidText: The literal prefix is longer than 4,096 characters.
    """
    if options.prompt_text is not None:
        if len(options.prompt_text) > _MAX_PROMPT_CHARACTERS:
            raise InvalidText("prompt_text", f"has more than {_MAX_PROMPT_CHARACTERS} characters")
        return options.prompt_text
    if options.prompt_name is not None:
        if options.prompt_name not in prompts:
            raise UnknownPrompt(list(prompts))
        return prompts[options.prompt_name]
    return next((prompts[name] for name in _PROMPT_NAMES[options.input_type] if name in prompts), "")
