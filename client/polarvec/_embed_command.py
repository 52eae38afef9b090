"""`polarvec embed`: a file to a file of vectors, or a few texts to the screen."""

from __future__ import annotations

import errno
import sys
from collections import deque
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from polarvec import _render
from polarvec._bulk_display import display, summary_json, summary_line
from polarvec._errors import InvalidRequest
from polarvec._options import (
    USAGE_ERROR,
    Connection,
    Dimensions,
    InputTypeChoice,
    Json,
    ModelId,
    Truncation,
    TruncationChoice,
    exit_code,
    reaches_server,
)
from polarvec.bulk import embed_file
from polarvec.bulk._readers import open_reader
from polarvec.bulk._rows import Problem, Row, checked_row
from polarvec.bulk._spec import input_format as format_of

_BAD_ROWS = 3
_INTERRUPTED = 130
_STDIN = "-"

_Input = Annotated[
    str | None,
    typer.Argument(help="A .jsonl, .csv, .tsv, .parquet or .txt file; - is stdin, one text a line.", metavar="[INPUT]"),
]
_Output = Annotated[
    Path | None,
    typer.Argument(help="A .parquet, .npy or .jsonl file to write; none shows a table.", metavar="[OUTPUT]"),
]
_Kept = Annotated[list[str] | None, typer.Option(help="A column to take along; may be given several times.")]


class _Encoding(StrEnum):
    float32 = "float32"
    float16 = "float16"
    int8 = "int8"
    binary = "binary"


class _InputFormat(StrEnum):
    jsonl = "jsonl"
    csv = "csv"
    tsv = "tsv"
    parquet = "parquet"
    text = "text"


@reaches_server
def embed(
    connection: Connection,
    input_: _Input = None,
    output: _Output = None,
    text: Annotated[list[str] | None, typer.Option(help="A text itself; may be given several times.")] = None,
    input_type: Annotated[
        InputTypeChoice | None, typer.Option(help="What the texts are for; document if there is an OUTPUT.")
    ] = None,
    field: Annotated[str, typer.Option(help="The column or key of the text.")] = "text",
    keep: _Kept = None,
    id_field: Annotated[str | None, typer.Option(help="A column to take along that also names bad rows.")] = None,
    encoding: Annotated[_Encoding, typer.Option(help="How OUTPUT holds the numbers.")] = _Encoding.float32,
    dimensions: Dimensions = 0,
    truncation: Truncation = TruncationChoice.error,
    model: ModelId = "",
    input_format: Annotated[_InputFormat | None, typer.Option(help="Where INPUT's ending does not say it.")] = None,
    errors: Annotated[Path | None, typer.Option(help="Where bad rows go; OUTPUT.errors.jsonl if not given.")] = None,
    restart: Annotated[bool, typer.Option("--restart", help="Begins anew, and replaces OUTPUT.")] = False,
    batch_size: Annotated[int, typer.Option(help="Texts in one item of the stream, at most.", min=1)] = 32,
    patience: Annotated[float, typer.Option(help="Seconds to wait for a server that is away.", min=0)] = 600.0,
    quiet: Annotated[bool, typer.Option("--quiet", help="Shows no progress.")] = False,
    npy: Annotated[Path | None, typer.Option(help="Without OUTPUT: writes an (N, D) float32 array there.")] = None,
    as_json: Json = False,
) -> None:
    """Embeds a file into a file, going on where an earlier run was killed; or shows the vectors of a few texts.

    Exit codes: 0 done, 1 the server failed (run it again to go on), 2 the call must change, 3 done but for bad rows,
    130 interrupted (run it again to go on).
    """
    with _complaints():
        if output is None:
            if as_json and npy is not None:
                raise typer.BadParameter("give --json or --npy, not both")
            _refuse_without_output(keep=keep, id_field=id_field, errors=errors, restart=restart, encoding=encoding)
            if input_type is None:
                raise typer.BadParameter("say what the texts are for: --input-type document, query or raw")
            options: dict[str, Any] = {"model": model, "dimensions": dimensions, "truncation": truncation.value}
            rows = _rows(input_, text, field, input_format)
            _show(connection, rows, {"input_type": input_type.value, **options}, npy=npy, as_json=as_json)
            return
        if text or input_ is None or npy is not None:
            raise typer.BadParameter("give INPUT and OUTPUT, or neither with --text and --npy")
        _existing(input_)
        with connection.client() as client, display(quiet=quiet) as on_progress:
            summary = embed_file(
                client,
                input_,
                output,
                input_type="document" if input_type is None else input_type.value,
                field=field,
                keep=keep or (),
                id_field=id_field,
                encoding=encoding.value,
                model=model,
                dimensions=dimensions,
                truncation=truncation.value,
                input_format=None if input_format is None else input_format.value,
                errors=errors,
                restart=restart,
                batch_size=batch_size,
                patience_s=patience,
                on_progress=on_progress,
            )
        _render.line(summary_json(summary) if as_json else summary_line(summary))
        if summary.error_count:
            raise typer.Exit(_BAD_ROWS)


@contextmanager
def _complaints() -> Iterator[None]:
    """What no server is to blame for, in one sentence and an exit code."""
    try:
        yield
    except OSError as error:
        if error.errno == errno.EPIPE and error.filename is None:  # `| head` has seen enough.
            raise
        where = f" {error.filename}" if error.filename is not None else ""
        _render.complain(f"Cannot read or write{where}: {error.strerror or error}; choose another file or place.")
        raise typer.Exit(USAGE_ERROR) from None
    except ModuleNotFoundError as error:  # The sentence says which extra.
        _render.complain(str(error))
        raise typer.Exit(USAGE_ERROR) from None
    except KeyboardInterrupt:
        _render.complain("Interrupted; a job that writes a file goes on when the same command runs again.")
        raise typer.Exit(_INTERRUPTED) from None


def _show(
    connection: Connection, rows: Iterator[Row], options: dict[str, Any], *, npy: Path | None, as_json: bool
) -> None:
    """All numbers as they come, or a table or an array when all is there."""
    with connection.client() as client:
        if as_json:
            codes: list[int] = []
            numbers: deque[int] = deque()
            for item in client.embed_stream(_good_texts(rows, numbers, codes), **options):
                number = numbers.popleft()
                if item.error is None:
                    _render.stream_item(replace(item, index=number))
                else:
                    _render.complain(Problem.from_error(item.error, number).message)
                    codes.append(exit_code(item.error))
            if codes:
                raise typer.Exit(max(codes))
            return
        listed = [_good_text(row) for row in rows]
        result = client.embed_detailed(listed, **options)
    if npy is None:
        _render.embeddings(listed, result)
        return
    with npy.open("wb") as out:
        np.save(out, np.asarray(result.embeddings))


def _rows(input_: str | None, text: list[str] | None, field: str, format_: _InputFormat | None) -> Iterator[Row]:
    """The rows from wherever the caller has them."""
    if text:
        if input_ is not None:
            raise typer.BadParameter("give INPUT or --text, not both")
        return (checked_row(number, given) for number, given in enumerate(text))
    if input_ is None and sys.stdin.isatty():
        raise typer.BadParameter("no texts: give a file, --text, or lines on stdin")
    path = _existing(_STDIN if input_ is None else input_)
    return _read(path, format_of(path, None if format_ is None else format_.value), field)


def _existing(input_: str) -> Path | None:
    """The file; None for stdin."""
    if input_ != _STDIN and not Path(input_).exists():
        raise typer.BadParameter(f"there is no file {input_}; a text itself goes with --text")
    return None if input_ == _STDIN else Path(input_)


def _read(path: Path | None, format_: str, field: str) -> Iterator[Row]:
    with closing(open_reader(path, format_, field)) as reader:
        yield from reader.rows(0)


def _good_texts(rows: Iterator[Row], numbers: deque[int], codes: list[int]) -> Iterator[str]:
    for row in rows:
        if row.problem is not None:
            _render.complain(row.problem.message)
            codes.append(USAGE_ERROR)
            continue
        numbers.append(row.number)
        yield row.text


def _good_text(row: Row) -> str:
    if row.problem is not None:
        raise InvalidRequest(row.problem.message, reason=row.problem.reason)
    return row.text


def _refuse_without_output(**options: object) -> None:
    for name, value in options.items():
        if value not in (None, False, _Encoding.float32, []):
            raise typer.BadParameter(
                f"--{name.replace('_', '-')} is for files: name an OUTPUT, such as vectors.parquet"
            )
