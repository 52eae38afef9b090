"""Arguments to request messages: the first step of a call, without any I/O."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TypeVar

from polarvec_proto.v1 import embedding_pb2 as pb

from polarvec._errors import InvalidRequest

_INPUT_TYPES = {"query": pb.INPUT_TYPE_QUERY, "document": pb.INPUT_TYPE_DOCUMENT, "raw": pb.INPUT_TYPE_RAW}
_TRUNCATIONS = {"error": pb.TRUNCATION_UNSPECIFIED, "end": pb.TRUNCATION_END, "start": pb.TRUNCATION_START}
_ENCODINGS = {
    "float32": pb.ENCODING_FLOAT32,
    "float16": pb.ENCODING_FLOAT16,
    "int8": pb.ENCODING_INT8,
    "binary": pb.ENCODING_BINARY,
}
_PRIORITIES = {"": pb.PRIORITY_UNSPECIFIED, "interactive": pb.PRIORITY_INTERACTIVE, "bulk": pb.PRIORITY_BULK}
_MAX_INT32 = 2**31 - 1
_MAX_TIMEOUT_S = 86_400

NumberT = TypeVar("NumberT", bound=int)


def as_texts(texts: str | Iterable[str], name: str = "texts") -> tuple[list[str], bool]:
    """The texts as a list, and whether the caller gave a single one.

    Raises:
        TypeError: Something in it is no str.
        InvalidRequest: There is none.
    """
    if isinstance(texts, str):
        return [texts], True
    if isinstance(texts, (bytes, bytearray, Mapping)) or not isinstance(texts, Iterable):
        raise TypeError(f"{name} is of type {type(texts).__name__}; give a str or a list of str")
    listed = list(texts)
    for index, text in enumerate(listed):
        check_text(text, index, name)
    if not listed:
        raise InvalidRequest(f"{name} is empty; give at least one text.", reason="NO_TEXTS", field=name)
    return listed, False


def check_stream_source(texts: object) -> None:
    """Refuses one str where many texts are meant: a str is iterable too, letter by letter.

    Raises:
        TypeError: It is a str or bytes.
    """
    if isinstance(texts, (str, bytes, bytearray)):
        raise TypeError(f"texts is of type {type(texts).__name__}; give a list or another iterable of str")


def check_text(text: object, index: int, name: str = "texts") -> str:
    """The text, if it is one.

    Raises:
        TypeError: It is no str.
    """
    if not isinstance(text, str):
        raise TypeError(f"{name}[{index}] is of type {type(text).__name__}; give a str")
    return text


def embed_template(
    *,
    input_type: str,
    encoding: str,
    model: str = "",
    prompt_name: str | None = None,
    prompt_text: str | None = None,
    dimensions: int = 0,
    truncation: str = "error",
    unnormalized: bool = False,
    priority: str | None = None,
) -> pb.EmbedRequest:
    """A request without its texts: every option checked once, for all batches of a call.

    Raises:
        InvalidRequest: An option has a value that the API does not know.
    """
    request = pb.EmbedRequest(
        model=_utf8("model", model),
        input_type=_number("input_type", input_type, _INPUT_TYPES, "UNKNOWN_INPUT_TYPE"),
        dimensions=_count("dimensions", dimensions, "UNSUPPORTED_DIMENSIONS"),
        truncation=_number("truncation", truncation, _TRUNCATIONS),
        unnormalized=unnormalized,
        encoding=_number("encoding", encoding, _ENCODINGS, "UNSUPPORTED_ENCODING"),
        priority=_number("priority", priority or "", _PRIORITIES),
    )
    _set_prompt(request, prompt_name, prompt_text)
    return request


def embed_request(template: pb.EmbedRequest, texts: Sequence[str]) -> pb.EmbedRequest:
    """A copy of the template that holds the texts."""
    request = pb.EmbedRequest()
    request.CopyFrom(template)
    request.texts.extend(texts)
    return request


def tokenize_request(template: pb.TokenizeRequest, texts: Sequence[str]) -> pb.TokenizeRequest:
    """A copy of the template that holds the texts."""
    request = pb.TokenizeRequest()
    request.CopyFrom(template)
    request.texts.extend(texts)
    return request


def tokenize_template(
    *,
    input_type: str,
    include_ids: bool = False,
    model: str = "",
    prompt_name: str | None = None,
    prompt_text: str | None = None,
) -> pb.TokenizeRequest:
    """A request without its texts.

    Raises:
        InvalidRequest: An option has a value that the API does not know.
    """
    request = pb.TokenizeRequest(
        model=_utf8("model", model),
        input_type=_number("input_type", input_type, _INPUT_TYPES, "UNKNOWN_INPUT_TYPE"),
        include_ids=include_ids,
    )
    _set_prompt(request, prompt_name, prompt_text)
    return request


def get_model_request(model: str) -> pb.GetModelRequest:
    """Asks for one model.

    Raises:
        InvalidRequest: The id cannot be sent.
    """
    return pb.GetModelRequest(model=_utf8("model", model))


def rank_request(
    queries: Sequence[str],
    documents: Sequence[str],
    *,
    top_k: int,
    model: str = "",
    dimensions: int = 0,
    truncation: str = "error",
    priority: str | None = None,
) -> pb.RankRequest:
    """The whole request.

    Raises:
        InvalidRequest: An option has a value that the API does not know, or a text cannot be sent.
    """
    return pb.RankRequest(
        model=_utf8("model", model),
        queries=[_utf8(f"queries[{index}]", text) for index, text in enumerate(queries)],
        documents=[_utf8(f"documents[{index}]", text) for index, text in enumerate(documents)],
        top_k=_count("top_k", top_k),
        truncation=_number("truncation", truncation, _TRUNCATIONS),
        dimensions=_count("dimensions", dimensions, "UNSUPPORTED_DIMENSIONS"),
        priority=_number("priority", priority or "", _PRIORITIES),
    )


def checked_timeout_s(timeout_s: float, name: str = "timeout_s") -> float:
    """The timeout, if a call can have it.

    Raises:
        InvalidRequest: It is not a positive number of seconds.
    """
    if not 0 < timeout_s <= _MAX_TIMEOUT_S:
        raise InvalidRequest(f"{name} is {timeout_s:g}; give seconds, more than 0 and at most {_MAX_TIMEOUT_S}.")
    return timeout_s


def checked_count(name: str, count: int) -> int:
    """The count, if it is at least 1.

    Raises:
        InvalidRequest: It is not.
        TypeError: It is no whole number.
    """
    _check_whole(name, count)
    if count < 1:
        raise InvalidRequest(f"{name} is {count}; give at least 1.")
    return count


def _set_prompt(request: pb.EmbedRequest | pb.TokenizeRequest, name: str | None, text: str | None) -> None:
    if name is not None and text is not None:
        raise InvalidRequest("Give prompt_name or prompt_text, not both.", reason="UNKNOWN_PROMPT", field="prompt")
    if name is not None:
        request.prompt_name = _utf8("prompt_name", name)
    if text is not None:
        request.prompt_text = _utf8("prompt_text", text)


def _number(field: str, value: str, numbers: Mapping[str, NumberT], reason: str = "INVALID_FIELD") -> NumberT:
    if value not in numbers:
        choices = ", ".join(f'"{name}"' for name in numbers if name)
        raise InvalidRequest(f"{field} is {value!r}; give one of {choices}.", reason=reason, field=field)
    return numbers[value]


def _count(field: str, value: int, reason: str = "INVALID_FIELD") -> int:
    _check_whole(field, value)
    if not 0 <= value <= _MAX_INT32:
        message = f"{field} is {value}; give 0 for all, or a whole number up to {_MAX_INT32}."
        raise InvalidRequest(message, reason=reason, field=field)
    return value


def _check_whole(name: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} is of type {type(value).__name__}; give a whole number")


def _utf8(field: str, value: str) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{field} is of type {type(value).__name__}; give a str")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        message = f"{field} has a lone surrogate at character {error.start}; clean it before sending."
        raise InvalidRequest(message, reason="INVALID_TEXT", field=field) from None  # The cause holds the user's text.
    return value
