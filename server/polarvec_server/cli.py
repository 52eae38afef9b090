"""The command `polarvec-server`: reads the settings, once, and starts what was asked for."""

from __future__ import annotations

import asyncio
import signal
import sys
from pathlib import Path
from typing import Annotated

import typer

from polarvec_server.config import Settings, load_settings
from polarvec_server.errors import ConfigError, PolarvecServerError
from polarvec_server.logs import configure_logging
from polarvec_server.models.commands import models_app
from polarvec_server.run_directory import run_directory

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help=__doc__)
app.add_typer(models_app, name="models")


def _say(line: str) -> None:
    print(line, flush=True)  # noqa: T201  this is the command's output


def _load(**overrides: object) -> Settings:
    settings = load_settings(**overrides)
    configure_logging(settings.log_level, settings.log_format)
    return settings


@app.command()
def serve(
    model: Annotated[str | None, typer.Argument(help="Model name or folder; several separated by commas.")] = None,
    grpc_port: Annotated[int | None, typer.Option(help="Port of the gRPC API.")] = None,
    http_port: Annotated[int | None, typer.Option(help="Port of /metrics, /healthz and /readyz.")] = None,
    openai_port: Annotated[int | None, typer.Option(help="Port of the HTTP API in OpenAI's form; 0 for none.")] = None,
    playground: Annotated[bool, typer.Option("--playground", help="Offers a page to try the models with.")] = False,
) -> None:
    """Serves models on this machine: Triton, the gateway and everything around them."""
    settings = _load(
        model=model,
        grpc_port=grpc_port,
        http_port=http_port,
        openai_port=openai_port,
        playground=playground or None,
    )
    with run_directory() as directory:
        from polarvec_server.supervisor import serve as serve_models

        serve_models(settings, directory, _say)


@app.command()
def prepare(
    directory: Annotated[Path, typer.Argument(help="Where the model repository and models.json go.")],
    model: Annotated[str | None, typer.Argument(help="Model name or folder; several separated by commas.")] = None,
    elsewhere: Annotated[
        bool, typer.Option("--elsewhere", help="For a machine that can compute what this one cannot, such as a GPU's.")
    ] = False,
) -> None:
    """Writes a model repository for a tritonserver that somebody else runs, and the models.json for `gateway`."""
    from polarvec_server.deployment import write_deployment
    from polarvec_server.prepare import prepare_models

    settings = _load(model=model)
    directory.mkdir(parents=True, exist_ok=True)
    models = prepare_models(settings, directory / "repository", _say, settings.engine_threads, elsewhere=elsewhere)
    write_deployment(directory / "models.json", models)


@app.command()
def gateway(
    directory: Annotated[Path, typer.Argument(help="What `prepare` wrote.")],
) -> None:
    """Serves in front of a tritonserver that somebody else runs (POLARVEC_TRITON_TARGET)."""
    settings = _load()
    if not settings.triton_target:
        raise ConfigError(
            "Set POLARVEC_TRITON_TARGET to the gRPC address of tritonserver, such as unix:/run/triton/grpc:0."
        )
    with run_directory():
        from polarvec_server.gateway_process import run_gateway

        asyncio.run(run_gateway(settings, directory / "models.json", _say))


@app.command(hidden=True)
def worker(
    deployment: Annotated[Path, typer.Option()],
    triton_target: Annotated[str, typer.Option()],
    worker_count: Annotated[int, typer.Option()],
    ready_fd: Annotated[int, typer.Option()],
) -> None:
    """One gateway worker; started by `serve` and `gateway`."""
    from polarvec_server.deployment import read_deployment
    from polarvec_server.gateway import GatewayWorker

    settings = _load()

    async def run() -> None:
        await GatewayWorker(settings, read_deployment(deployment), triton_target, worker_count).run(ready_fd)

    asyncio.run(run())


@app.command()
def probe(
    target: Annotated[
        str, typer.Argument(help="gRPC address of a gateway, or http://host:port of its operators' port.")
    ] = "127.0.0.1:50051",
    service: Annotated[str, typer.Option(help="Health service: empty for the process, or a model id.")] = "",
) -> None:
    """Exits with 0 if a gateway says SERVING, with 1 otherwise; for container probes."""
    from polarvec_server.probes import probe_gateway

    probe_gateway(target, service)
    _say("serving")


@app.command("probe-encoder")
def probe_encoder_command(
    directory: Annotated[Path, typer.Argument(help="What `prepare` wrote.")],
    timeout_s: Annotated[float, typer.Option(help="Seconds to wait for each model.")] = 5.0,
) -> None:
    """Exits with 0 if tritonserver (POLARVEC_TRITON_TARGET) computes every model's golden vector, with 1 otherwise."""
    from polarvec_server.probes import probe_encoder

    settings = _load()
    asyncio.run(probe_encoder(directory / "models.json", settings.triton_target, timeout_s))
    _say("serving")


@app.command("settings")
def print_settings() -> None:
    """Prints every setting as the table of docs/operations.md."""
    from polarvec_server.settings_table import settings_table

    _say(settings_table())


def main() -> None:
    """Runs the command; an error of ours is one sentence and status 1, never a traceback."""
    # SIGTERM ends a start in order, too; a running server has its own handlers.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        app()
    except PolarvecServerError as error:
        print(f"polarvec-server: {error}", file=sys.stderr)  # noqa: T201
        sys.exit(1)


if __name__ == "__main__":
    main()
