"""The errors of the encoder: why a model folder, an engine choice or a request is refused."""

from __future__ import annotations


class EncoderError(Exception):
    """Base of every error that the encoder raises on purpose; its text is one sentence that says what to do."""


class ModelRefused(EncoderError):
    """The model folder cannot be served; the message names the file and what is wrong with it."""


class ChoiceRefused(EncoderError):
    """The engine or precision asked for cannot run here."""


class RequestRefused(EncoderError):
    """One request breaks the pack format; the text is fixed and holds nothing of the request."""


class SelfTestFailed(EncoderError):
    """The engine started, but its vectors are not the ones the model folder should give."""
