"""The door for OpenAI's clients: POST /v1/embeddings and GET /v1/models."""

from __future__ import annotations

from collections.abc import Sequence

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from polarvec_server.edge.http_call import HttpCall
from polarvec_server.edge.http_frame import HttpFrame
from polarvec_server.edge.openai_answers import embeddings_body, error_body, model_body
from polarvec_server.edge.openai_requests import SUFFIXES, find_model, read_request
from polarvec_server.edge.registry import ModelRegistry
from polarvec_server.pipeline.embedder import Schedule
from polarvec_server.pipeline.postprocess import encode_vectors
from polarvec_server.pipeline.values import InputType, Priority


def openai_routes(registry: ModelRegistry, frame: HttpFrame) -> list[Route]:
    """Returns the routes of /v1."""

    async def embeddings(call: HttpCall) -> Response:
        call.record.timed = True
        request = read_request(call.json(), registry)
        model, record = request.model, call.record
        record.model = model.id
        interactive = request.text_options.input_type is InputType.QUERY
        schedule = Schedule(Priority.INTERACTIVE if interactive else Priority.BULK, call.deadline)
        options = request.text_options, request.vector_options, schedule
        if request.token_ids:
            embedded = await model.embedder.embed_token_ids(request.token_ids, *options)
        else:
            embedded = await model.embedder.embed(request.texts, *options)
        record.note(embedded.tokenized, schedule.timings)
        encoded = encode_vectors(embedded.vectors, request.vector_options.encoding)
        body = await embeddings_body(model, encoded, request.encoding_format == "float", record.token_count)
        return Response(body, media_type="application/json")

    async def models(_: HttpCall) -> Response:
        names = [model_body(model, suffix) for model in registry.visible() for suffix in ("", *SUFFIXES)]
        return JSONResponse({"object": "list", "data": names})

    async def model(call: HttpCall) -> Response:
        found, input_type = find_model(call.request.path_params["model"], registry)
        return JSONResponse(model_body(found, input_type.value if input_type else ""))

    return [
        frame.route("/v1/embeddings", embeddings, method="POST", render_error=error_body),
        frame.route("/v1/models", models, method="GET", render_error=error_body),
        frame.route("/v1/models/{model:path}", model, method="GET", render_error=error_body),
    ]


def openai_app(registry: ModelRegistry, frame: HttpFrame, more: Sequence[Route] = ()) -> Starlette:
    """Returns the application of the HTTP door; `more` are the playground's routes."""
    # Starlette asks for handlers of any exception; the ones that it raises itself are for paths that are none of ours.
    app = Starlette(routes=[*openai_routes(registry, frame), *more], exception_handlers={HTTPException: _refuse_path})
    # A redirect would name http and the port as they are behind a proxy, and ask for no key.
    app.router.redirect_slashes = False
    return app


async def _refuse_path(request: Request, error: Exception) -> Response:
    """Answers 404 and 405 in OpenAI's form."""
    status, headers = (error.status_code, error.headers) if isinstance(error, HTTPException) else (404, None)
    message = "Nothing is here for this method and path; there are POST /v1/embeddings and GET /v1/models."
    body = {"message": message, "type": "invalid_request_error", "param": None, "code": "unknown_url"}
    return JSONResponse({"error": body}, status, headers)
