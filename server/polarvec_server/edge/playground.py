"""The playground, a page for a person to try the models with, and the calls that it makes."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import numpy as np
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from polarvec_server.edge.http_call import HttpCall, check_unicode
from polarvec_server.edge.http_frame import HttpFrame
from polarvec_server.edge.registry import ModelRegistry, ServedModel
from polarvec_server.errors import InvalidField, RequestError, TooManyTexts
from polarvec_server.pipeline.embedder import Embedded, Schedule
from polarvec_server.pipeline.prompts import choose_prompt
from polarvec_server.pipeline.values import InputType, Priority, TextOptions, Truncation, VectorOptions

_SOURCES = Path(__file__).parent / "playground_page"
_SCRIPTS = ("words.js", "answer.js", "load.js", "page.js")
# A table that a person can still look at, and an answer of less than 1 MiB.
_MAX_SCORES = 20_000


def playground_routes(
    registry: ModelRegistry, frame: HttpFrame, load: Callable[[], Awaitable[dict[str, Any]]]
) -> list[Route]:
    """Returns the routes of the page at `/` and of its calls under `/playground/`.

    Args:
        registry: The models to choose from.
        frame: What the calls go through; the page itself needs no key.
        load: Reads the counters of the live view.
    """

    async def models(_: HttpCall) -> Response:
        return JSONResponse({"models": [_describe(model) for model in registry.visible()]})

    async def rank(call: HttpCall) -> Response:
        return JSONResponse(await _rank(registry, call))

    async def read_load(_: HttpCall) -> Response:
        return JSONResponse(await load(), headers={"cache-control": "no-store"})

    page, headers = make_page()

    async def show(_: Request) -> Response:
        return Response(page, media_type="text/html", headers=headers)

    return [
        Route("/", show, methods=["GET"]),
        frame.route("/playground/models", models, method="GET", render_error=error_body),
        frame.route("/playground/rank", rank, method="POST", render_error=error_body),
        frame.route("/playground/load", read_load, method="GET", render_error=error_body),
    ]


def make_page() -> tuple[bytes, dict[str, str]]:
    """Puts style and scripts into the page.

    Returns:
        The page, and headers that let a browser run nothing but what stands in it and call nobody but this server.
    """
    style = (_SOURCES / "page.css").read_text(encoding="utf-8")
    script = "\n".join((_SOURCES / name).read_text(encoding="utf-8") for name in _SCRIPTS)
    page = (_SOURCES / "page.html").read_text(encoding="utf-8")
    page = page.replace("/*page.css*/", style).replace("/*page.js*/", script)
    policy = (
        f"default-src 'none'; style-src '{_hash(style)}'; script-src '{_hash(script)}'; connect-src 'self'; "
        "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    headers = {
        "content-security-policy": policy,
        "referrer-policy": "no-referrer",
        "x-content-type-options": "nosniff",
        "cache-control": "no-cache",
    }
    return page.encode(), headers


def error_body(error: RequestError) -> dict[str, Any]:
    """Returns an error as the page reads it."""
    return {
        "error": {
            "message": error.message,
            "reason": error.reason,
            "field": error.field,
            "metadata": error.metadata,
        }
    }


def _hash(source: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(source.encode()).digest()).decode()}"


def _describe(model: ServedModel) -> dict[str, Any]:
    message = model.message
    return {
        "id": model.id,
        "architecture": message.architecture,
        "dimensions": message.dimensions,
        "trained_dimensions": list(message.trained_dimensions),
        "max_token_count": message.max_token_count,
        "precision": message.precision,
        "engine": message.engine,
        "fingerprint": message.fingerprint,
    }


async def _rank(registry: ModelRegistry, call: HttpCall) -> dict[str, Any]:
    """Embeds queries and documents as Rank does, and returns all their similarities with counts and times."""
    fields, record = call.json(), call.record
    model = registry.find(_read_text(fields, "model"))
    record.model, record.timed = model.id, True
    truncation = _read_truncation(fields)
    queries, documents = (_read_texts(model, fields, name) for name in ("queries", "documents"))
    if len(queries) * len(documents) > _MAX_SCORES:
        raise TooManyTexts("score", len(queries) * len(documents), _MAX_SCORES, "documents")
    options = [
        TextOptions(InputType.QUERY, truncation=truncation, field="queries"),
        TextOptions(InputType.DOCUMENT, truncation=truncation, field="documents"),
    ]
    schedule = Schedule(Priority.INTERACTIVE, call.deadline)
    groups = list(zip((queries, documents), options, strict=True))
    sides = await model.embedder.embed_together(groups, VectorOptions(_read_dimensions(fields)), schedule)
    for side in sides:
        record.note(side.tokenized, schedule.timings)
    scores = np.clip(sides[0].vectors @ sides[1].vectors.T, -1.0, 1.0)
    prompts = [choose_prompt(model.message.prompts, option) for option in options]
    timings = schedule.timings
    return {
        "model": model.id,
        "fingerprint": model.fingerprint,
        "dimensions": sides[0].vectors.shape[1],
        "max_token_count": model.embedder.max_tokens,
        "queries": _count(sides[0], prompts[0]),
        "documents": _count(sides[1], prompts[1]),
        "scores": scores.astype(np.float64).round(6).tolist(),
        "timings_ms": {
            "tokenize": round(timings.tokenize_ms, 3),
            "queue": round(timings.queue_ms, 3),
            "inference": round(timings.inference_ms, 3),
        },
    }


def _count(side: Embedded, prompt: str) -> dict[str, Any]:
    return {
        "token_counts": side.tokenized.lengths.tolist(),
        "full_token_counts": side.tokenized.full_counts.tolist(),
        "prompt": prompt,
    }


def _read_text(fields: dict[str, Any], name: str) -> str:
    value = fields.get(name, "")
    if not isinstance(value, str):
        raise InvalidField(name, "must be a string")
    return value


def _read_texts(model: ServedModel, fields: dict[str, Any], name: str) -> list[str]:
    texts = fields.get(name, [])
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise InvalidField(name, "must be a list of strings")
    model.check_text_count(len(texts), name)
    check_unicode(texts, name)
    return texts


def _read_truncation(fields: dict[str, Any]) -> Truncation:
    try:
        return Truncation(fields.get("truncation", "refuse"))
    except ValueError:
        raise InvalidField("truncation", "must be refuse, end or start") from None


def _read_dimensions(fields: dict[str, Any]) -> int:
    value = fields.get("dimensions", 0)
    if not isinstance(value, int) or isinstance(value, bool):
        raise InvalidField("dimensions", "must be a whole number")
    return value
