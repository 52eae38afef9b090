"""The commands behind `polarvec`: thin wrappers around Client, printed by `_render`."""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer

from polarvec import _bench, _render
from polarvec._channel import package_version
from polarvec._embed_command import embed
from polarvec._errors import Unavailable
from polarvec._options import (
    FAILED,
    Connection,
    Dimensions,
    File,
    InputTypeChoice,
    Json,
    ModelId,
    Truncation,
    TruncationChoice,
    in_the_words_of_the_cli,
    lines,
    reaches_server,
)
from polarvec._similarity import cosine_similarity

app = typer.Typer(
    name="polarvec",
    help="Korean and English text to retrieval vectors, by a Polarvec server.",
    epilog="Exit codes: 0 done; 1 the server or the way to it failed; 2 the call must change; 3 done but for bad rows "
    "(embed); 130 interrupted.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)

_TABLE_TEXTS = 50
_InputType = Annotated[InputTypeChoice, typer.Option(help="What the texts are for.")]


def _print_version(wanted: bool) -> None:
    if wanted:
        _render.version(package_version(), as_json=False)
        raise typer.Exit


@app.callback()
def _before(
    version: Annotated[
        bool, typer.Option("--version", help="Prints the version and ends.", is_eager=True, callback=_print_version)
    ] = False,
) -> None:
    """The options of the command itself."""


app.command()(embed)


@app.command()
@reaches_server
def rank(
    connection: Connection,
    documents: Annotated[list[str] | None, typer.Argument(help="Documents; without them and --file, stdin.")] = None,
    query: Annotated[list[str], typer.Option(help="A query; may be given several times.")] = ...,  # type: ignore[assignment]  # typer's way to say required
    file: File = None,
    top_k: Annotated[int, typer.Option(help="Documents to show for each query; 0 means all.", min=0)] = 0,
    dimensions: Dimensions = 0,
    truncation: Truncation = TruncationChoice.error,
    model: ModelId = "",
    as_json: Json = False,
) -> None:
    """Orders documents by their similarity to each query."""
    listed = list(lines(documents, file))
    with connection.client() as client:
        rankings = client.rank(
            query, listed, top_k=top_k, model=model, dimensions=dimensions, truncation=truncation.value
        )
    _render.rankings(query, listed, rankings, as_json=as_json)


@app.command()
@reaches_server
def similarity(
    connection: Connection,
    texts: Annotated[list[str] | None, typer.Argument(help="Texts; without them and --file, lines of stdin.")] = None,
    file: File = None,
    input_type: _InputType = InputTypeChoice.document,
    dimensions: Dimensions = 0,
    truncation: Truncation = TruncationChoice.error,
    model: ModelId = "",
    as_json: Json = False,
) -> None:
    """Compares texts of one kind with each other; `rank` is for queries and documents."""
    listed = list(lines(texts, file))
    if len(listed) < 2:
        raise typer.BadParameter("give at least two texts to compare")
    if len(listed) > _TABLE_TEXTS and not as_json:
        raise typer.BadParameter(f"a table of {len(listed)} by {len(listed)} texts cannot be read; use --json")
    with connection.client() as client:
        rows = client.embed(
            listed, input_type=input_type.value, model=model, dimensions=dimensions, truncation=truncation.value
        )
    _render.similarities(listed, cosine_similarity(rows, rows), as_json=as_json)


@app.command()
@reaches_server
def tokenize(
    connection: Connection,
    texts: Annotated[list[str] | None, typer.Argument(help="Texts; without them and --file, lines of stdin.")] = None,
    file: File = None,
    input_type: _InputType = ...,  # type: ignore[assignment]  # typer's way to say required
    ids: Annotated[bool, typer.Option("--ids", help="Shows the token ids too.")] = False,
    model: ModelId = "",
    as_json: Json = False,
) -> None:
    """Counts tokens, the prompt and special tokens included, and says what is too long."""
    listed = list(lines(texts, file))
    with connection.client() as client:
        counted = client.tokenize(listed, input_type=input_type.value, include_ids=ids, model=model)
        limit = client.model(model).max_token_count
    _render.tokens(listed, counted, limit=limit, with_ids=ids, as_json=as_json)


@app.command()
@reaches_server
def models(
    connection: Connection,
    model: Annotated[str, typer.Argument(help="Everything about this model; without it a list of all.")] = "",
    as_json: Json = False,
) -> None:
    """Shows the models that the server answers for, the default one first."""
    with connection.client() as client:
        if model:
            _render.model(client.model(model), as_json=as_json)
        else:
            _render.models(client.models(), as_json=as_json)


@app.command()
@reaches_server
def health(
    connection: Connection,
    service: Annotated[str, typer.Argument(help="A model id; nothing means the whole server.")] = "",
    as_json: Json = False,
) -> None:
    """Says whether each server can embed now; exits with 1 if one cannot."""
    several = len(connection.targets) > 1
    unhealthy = False
    for target, alone in connection.each():
        with alone.client() as client:
            try:
                serving = client.health(service)
            except Unavailable as error:
                if not several:
                    raise
                serving = False
                _render.complain(f"{target}: {in_the_words_of_the_cli(error)}")
        _render.health(target if several else "", service, serving=serving, as_json=as_json)
        unhealthy |= not serving
    if unhealthy:
        raise typer.Exit(FAILED)


@app.command()
@reaches_server
def bench(
    connection: Connection,
    seconds: Annotated[float, typer.Option(help="How long calls are begun.", min=0.1, max=86_400)] = 10.0,
    concurrency: Annotated[int, typer.Option(help="Calls under way at any time (closed loop).", min=1)] = 8,
    rate: Annotated[
        float | None,
        typer.Option(
            help="Calls begun in a second, whether or not the last ones are answered (open loop).",
            min=0.01,
            max=100_000,
        ),
    ] = None,
    batch_size: Annotated[int, typer.Option(help="Texts a call.", min=1)] = 1,
    file: File = None,
    input_type: _InputType = InputTypeChoice.query,
    model: ModelId = "",
    as_json: Json = False,
) -> None:
    """Measures a running server: texts and tokens in a second, and latencies. Sends 8 sentences, or those of --file."""
    texts = list(lines(None, file)) if file is not None else _bench.SAMPLE_TEXTS
    load = _bench.Load(texts, input_type.value, model, batch_size, seconds, concurrency, rate)
    findings = asyncio.run(_bench.run(load, connection.async_client))
    _render.bench(findings, as_json=as_json)
    if not findings.latencies_ms:
        raise typer.Exit(FAILED)


@app.command()
def version(as_json: Json = False) -> None:
    """Prints the version of this client."""
    _render.version(package_version(), as_json=as_json)
