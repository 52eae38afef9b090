"""The commands behind `polarvec`: thin wrappers around Client, printed by `_render`."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from numpy.typing import NDArray

from polarvec import _render
from polarvec._channel import DEFAULT_TARGET, package_version
from polarvec._client import Client
from polarvec._errors import InvalidRequest, NotFound, PolarvecError

_FAILED = 1
_USAGE_ERROR = 2

app = typer.Typer(
    name="polarvec",
    help="Korean and English text to retrieval vectors, by a Polarvec server.",
    epilog="Exit codes: 0 done; 1 the server or the way to it failed; 2 the call must change.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

_Target = Annotated[str, typer.Option(envvar="POLARVEC_TARGET", help="host:port of the server.")]
_ApiKey = Annotated[str | None, typer.Option(envvar="POLARVEC_API_KEY", help="Sent as a bearer token.")]
_Timeout = Annotated[float, typer.Option(help="Seconds that one gRPC call may take.", min=0.001)]
_ModelId = Annotated[str, typer.Option(help="A model id; the server's default if not given.")]
_Json = Annotated[bool, typer.Option("--json", help="JSON instead of a table.")]
_File = Annotated[Path | None, typer.Option(help="Texts from a file, one a line.", exists=True, dir_okay=False)]
_Dimensions = Annotated[int, typer.Option(help="Leading dimensions to use; 0 means all.", min=0)]


class _InputType(StrEnum):
    query = "query"
    document = "document"
    raw = "raw"


class _Truncation(StrEnum):
    error = "error"
    end = "end"
    start = "start"


@contextmanager
def _connected(target: str, api_key: str | None, timeout: float) -> Iterator[Client]:
    """A client whose errors become one sentence and an exit code."""
    try:
        with Client(target, api_key=api_key, timeout_s=timeout) as client:
            yield client
    except PolarvecError as error:
        _render.complain(str(error))
        raise typer.Exit(_exit_code(error)) from None
    except UnicodeDecodeError:
        _render.complain("The input is not UTF-8; convert it first, for example with iconv.")
        raise typer.Exit(_USAGE_ERROR) from None


def _exit_code(error: PolarvecError) -> int:
    return _USAGE_ERROR if isinstance(error, (InvalidRequest, NotFound)) else _FAILED


@app.command()
def embed(
    texts: Annotated[list[str] | None, typer.Argument(help="Texts; without them and --file, lines of stdin.")] = None,
    file: _File = None,
    input_type: Annotated[_InputType, typer.Option(help="What the texts are for.")] = ...,  # type: ignore[assignment]  # typer's way to say required
    npy: Annotated[Path | None, typer.Option(help="Writes an (N, D) float32 array to this .npy file.")] = None,
    dimensions: _Dimensions = 0,
    truncation: Annotated[
        _Truncation, typer.Option(help="What happens to texts that are too long.")
    ] = _Truncation.error,
    model: _ModelId = "",
    target: _Target = DEFAULT_TARGET,
    api_key: _ApiKey = None,
    timeout: _Timeout = 30.0,
    as_json: _Json = False,
) -> None:
    """Embeds texts: a table of what came, all numbers with --json (one object a line) or --npy."""
    if npy is not None and as_json:
        raise typer.BadParameter("give --json or --npy, not both")
    with _connected(target, api_key, timeout) as client:
        if as_json:
            items = client.embed_stream(
                _lines(texts, file),
                input_type=input_type.value,
                model=model,
                dimensions=dimensions,
                truncation=truncation.value,
            )
            errors = [item.error for item in map(_render.stream_item, items) if item.error is not None]
            if errors:
                raise typer.Exit(max(map(_exit_code, errors)))
            return
        listed = list(_lines(texts, file))
        result = client.embed_detailed(
            listed, input_type=input_type.value, model=model, dimensions=dimensions, truncation=truncation.value
        )
    if npy is not None:
        _save(npy, np.asarray(result.embeddings))
    else:
        _render.embeddings(listed, result)


@app.command()
def rank(
    documents: Annotated[list[str] | None, typer.Argument(help="Documents; without them and --file, stdin.")] = None,
    query: Annotated[list[str], typer.Option(help="A query; may be given several times.")] = ...,  # type: ignore[assignment]  # typer's way to say required
    file: _File = None,
    top_k: Annotated[int, typer.Option(help="Documents to show for each query; 0 means all.", min=0)] = 0,
    dimensions: _Dimensions = 0,
    model: _ModelId = "",
    target: _Target = DEFAULT_TARGET,
    api_key: _ApiKey = None,
    timeout: _Timeout = 30.0,
    as_json: _Json = False,
) -> None:
    """Orders documents by their similarity to each query."""
    with _connected(target, api_key, timeout) as client:
        listed = list(_lines(documents, file))
        rankings = client.rank(query, listed, top_k=top_k, model=model, dimensions=dimensions)
    _render.rankings(query, listed, rankings, as_json=as_json)


@app.command()
def models(
    target: _Target = DEFAULT_TARGET, api_key: _ApiKey = None, timeout: _Timeout = 30.0, as_json: _Json = False
) -> None:
    """Shows the models that the server answers for, the default one first."""
    with _connected(target, api_key, timeout) as client:
        listed = client.models()
    _render.models(listed, as_json=as_json)


@app.command()
def health(
    service: Annotated[str, typer.Argument(help="A model id; nothing means the whole server.")] = "",
    target: _Target = DEFAULT_TARGET,
    api_key: _ApiKey = None,
    timeout: _Timeout = 30.0,
    as_json: _Json = False,
) -> None:
    """Says whether the server can embed now; exits with 1 if it cannot."""
    with _connected(target, api_key, timeout) as client:
        serving = client.health(service)
    _render.health(service, serving=serving, as_json=as_json)
    if not serving:
        raise typer.Exit(_FAILED)


@app.command()
def version() -> None:
    """Prints the version of this client."""
    _render.line(package_version())


def _save(path: Path, rows: NDArray[np.float32]) -> None:
    """Writes an .npy file."""
    try:
        with path.open("wb") as out:
            np.save(out, rows)
    except OSError as error:
        _render.complain(f"Cannot write {path}: {error.strerror}; choose another file.")
        raise typer.Exit(_USAGE_ERROR) from None


def _lines(texts: list[str] | None, file: Path | None) -> Iterator[str]:
    """The texts from wherever the caller has them."""
    if texts and file is not None:
        raise typer.BadParameter("give texts or --file, not both")
    if texts:
        yield from texts
    elif file is not None:
        with file.open(encoding="utf-8") as lines:
            yield from (line.rstrip("\r\n") for line in lines)
    elif sys.stdin.isatty():
        raise typer.BadParameter("no texts: give them as arguments, with --file, or on stdin")
    else:
        yield from (line.rstrip("\r\n") for line in sys.stdin)
