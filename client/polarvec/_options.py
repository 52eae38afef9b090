"""What the commands of `polarvec` share: the options that reach a server, the sources of texts, the exit codes."""

from __future__ import annotations

import inspect
import io
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, Concatenate, ParamSpec, TypeAlias

import typer

from polarvec import _render
from polarvec._async_client import AsyncClient
from polarvec._client import Client
from polarvec._errors import TLS_FAILED, InvalidRequest, NotFound, PermissionDenied, PolarvecError, Unauthenticated
from polarvec._targets import DEFAULT_TARGET
from polarvec._tls import Tls

FAILED = 1
USAGE_ERROR = 2
_PANEL = "Connection"
# Without the mark that editors on Windows put before the first line.
_UTF8 = "utf-8-sig"
# (reason, what the API or the SDK says, what to type here); an empty reason is the client's own or gRPC's error.
_WORDS = (
    ("UNAUTHENTICATED", "authorization: Bearer KEY", "--api-key, or the variable POLARVEC_API_KEY"),
    (TLS_FAILED, "the ca and server_name of tls", "--tls-ca and --tls-server-name"),
    ("TEXT_TOO_LONG", "ask for truncation", "cut it with --truncation end"),
    ("", "Tls has a certificate or a key without the other", "Of --tls-certificate and --tls-key one is missing"),
    ("", "Tls.ca, the file", "--tls-ca, the file"),
    ("", "Tls.certificate, the file", "--tls-certificate, the file"),
    ("", "Tls.key, the file", "--tls-key, the file"),
    ("", "give a PEM file's path, or its content as bytes", "give a PEM file's path"),
    ("", "that tls is given", "that --tls is given"),
    ("", "check the target", "check --target"),
    ("", "within timeout_s; raise it", "within --timeout; raise it"),
    ("", "models() lists", "polarvec models lists"),
)

P = ParamSpec("P")

ModelId = Annotated[str, typer.Option(help="A model id; the server's default if not given.")]
Json = Annotated[bool, typer.Option("--json", help="JSON instead of a table.")]
File = Annotated[Path | None, typer.Option(help="Texts from a file, one a line.", exists=True, dir_okay=False)]
_Pem: TypeAlias = Path | None
Dimensions = Annotated[int, typer.Option(help="Leading dimensions to use; 0 means all.", min=0)]


class InputTypeChoice(StrEnum):
    """What texts are for, as an option."""

    query = "query"
    document = "document"
    raw = "raw"


class TruncationChoice(StrEnum):
    """What happens to texts that are too long, as an option."""

    error = "error"
    end = "end"
    start = "start"


Truncation = Annotated[TruncationChoice, typer.Option(help="What happens to texts that are too long.")]


@dataclass(frozen=True, slots=True)
class Connection:
    """How a command reaches the server."""

    targets: tuple[str, ...]
    """One host:port, or several that share the calls."""
    client_options: dict[str, Any] = field(repr=False)
    """Keyword arguments of Client and AsyncClient."""

    def client(self) -> Client:
        """A blocking client of all targets."""
        return Client(self._target, **self.client_options)

    def async_client(self) -> AsyncClient:
        """An asyncio client of all targets."""
        return AsyncClient(self._target, **self.client_options)

    def each(self) -> Iterator[tuple[str, Connection]]:
        """Every target by itself."""
        for target in self.targets:
            yield target, Connection((target,), self.client_options)

    @property
    def _target(self) -> Any:
        return self.targets[0] if len(self.targets) == 1 else list(self.targets)


def _connection(
    *,
    target: Annotated[
        list[str],
        typer.Option(
            envvar="POLARVEC_TARGET",
            help="host:port of a server; give it several times (or several in the variable, with spaces between) "
            "to share the calls out.",
            rich_help_panel=_PANEL,
        ),
    ] = [DEFAULT_TARGET],  # noqa: B006 - typer reads it and never changes it.
    api_key: Annotated[
        str | None,
        typer.Option(
            envvar="POLARVEC_API_KEY", help="Sent as a bearer token; rather in the variable.", rich_help_panel=_PANEL
        ),
    ] = None,
    timeout: Annotated[
        float, typer.Option(help="Seconds that one gRPC call may take.", min=0.001, rich_help_panel=_PANEL)
    ] = 30.0,
    tls: Annotated[
        bool, typer.Option("--tls", help="Encrypts; the other TLS options do so too.", rich_help_panel=_PANEL)
    ] = False,
    tls_ca: Annotated[
        _Pem, typer.Option(help="Certificates that the server's must come from.", rich_help_panel=_PANEL)
    ] = None,
    tls_certificate: Annotated[
        _Pem, typer.Option(help="This client's certificate, for servers that ask.", rich_help_panel=_PANEL)
    ] = None,
    tls_key: Annotated[_Pem, typer.Option(help="This client's private key.", rich_help_panel=_PANEL)] = None,
    tls_server_name: Annotated[
        str | None, typer.Option(help="The name in the server's certificate.", rich_help_panel=_PANEL)
    ] = None,
) -> Connection:
    """The options of every command that talks to a server."""
    parts = (tls_ca, tls_certificate, tls_key, tls_server_name)
    encrypted = Tls(*parts) if tls or any(part is not None for part in parts) else None
    return Connection(tuple(target), {"api_key": api_key, "timeout_s": timeout, "tls": encrypted})


def reaches_server(command: Callable[Concatenate[Connection, P], None]) -> Callable[..., None]:
    """Gives a command the options of a connection in place of its first parameter, and its errors exit codes.

    Args:
        command: Its first parameter is the Connection; the others are its own options and arguments.
    """
    own = list(inspect.signature(command, eval_str=True).parameters.values())[1:]
    shared = list(inspect.signature(_connection, eval_str=True).parameters.values())
    own = [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in own]

    @wraps(command)
    def with_options(**values: Any) -> None:
        connection = _connection(**{parameter.name: values.pop(parameter.name) for parameter in shared})
        try:
            command(connection, **values)  # type: ignore[call-arg]  # typer passes every parameter by name
        except PolarvecError as error:
            _render.complain(in_the_words_of_the_cli(error))
            raise typer.Exit(exit_code(error)) from None
        except UnicodeDecodeError:
            _render.complain("The input is not UTF-8; convert it first, for example with iconv.")
            raise typer.Exit(USAGE_ERROR) from None

    parameters = [*own, *shared]
    with_options.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]  # where typer looks
    with_options.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return with_options


def in_the_words_of_the_cli(error: PolarvecError) -> str:
    """The error's sentence, with this command's options in place of the API's fields and the SDK's arguments."""
    sentence = str(error)
    for reason, said, typed in _WORDS:
        if error.reason == reason:
            sentence = sentence.replace(said, typed)
    return sentence


def exit_code(error: PolarvecError) -> int:
    """2 if the call or its key must change, 1 if the server or the way to it failed."""
    callers = (InvalidRequest, NotFound, Unauthenticated, PermissionDenied)
    return USAGE_ERROR if isinstance(error, callers) else FAILED


def lines(texts: list[str] | None, file: Path | None) -> Iterator[str]:
    """The texts from wherever the caller has them: arguments, a file, or stdin."""
    if texts and file is not None:
        raise typer.BadParameter("give texts or --file, not both")
    if texts:
        yield from texts
    elif file is not None:
        with file.open(encoding=_UTF8) as source:
            yield from (line.rstrip("\r\n") for line in source)
    elif sys.stdin.isatty():
        raise typer.BadParameter("no texts: give them as arguments, with --file, or on stdin")
    else:
        if isinstance(sys.stdin, io.TextIOWrapper):  # Whatever the terminal's encoding is, and whatever it lets pass.
            sys.stdin.reconfigure(encoding=_UTF8, errors="strict")
        yield from (line.rstrip("\r\n") for line in sys.stdin)
