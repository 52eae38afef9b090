"""The commands `polarvec-server models ...`: bring models, list them, show what one says about itself."""

import json
import re
from collections.abc import Callable
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from polarvec_server.config import load_settings
from polarvec_server.models import pull as pulling
from polarvec_server.models import random_weights
from polarvec_server.models.folder import ModelFolder, ModelFolderError, fingerprint, read_folder
from polarvec_server.models.store import resolve, stored_folders

models_app = typer.Typer(no_args_is_help=True, help="Brings, lists and shows models.")

# The number formats that engines compute in, each an embedding space of its own.
_PRECISIONS = ("f32", "bf16", "fp16", "int8", "fp8")


@models_app.command("pull")
def pull_model(
    name: Annotated[str, typer.Argument(help="e5-small (no hub needed), or NAME[@REVISION] of the hub.")],
) -> None:
    """Brings a model here and prints its folder."""
    settings = load_settings()
    folder = pulling.obtain(name, settings.models_dir, settings.hub_endpoint or None, _say_aside())
    typer.echo(str(folder))


@models_app.command("random")
def random_model(
    kind: Annotated[random_weights.RandomKind, typer.Argument(help="The shape.")],
    layers: Annotated[int | None, typer.Option(min=1, max=999, help="Layers, if not the shape's own.")] = None,
) -> None:
    """Makes a model with random weights, for tests of speed, and prints its folder."""
    typer.echo(str(random_weights.build_random(kind, load_settings().models_dir, layers)))


@models_app.command("list")
def list_models(as_json: Annotated[bool, typer.Option("--json", help="Prints JSON.")] = False) -> None:
    """Lists the models that are here."""
    models_dir = load_settings().models_dir
    rows, broken = [], []
    for path in stored_folders(models_dir):
        try:
            rows.append(_row(read_folder(path)))
        except ModelFolderError as error:
            broken.append(str(error))
    if as_json:
        typer.echo(json.dumps(rows, ensure_ascii=False))
    elif rows:
        Console().print(_table(rows))
    else:
        typer.echo(f"There are no models in {models_dir}; bring one with `polarvec-server models pull e5-small`.")
    for complaint in broken:
        typer.echo(complaint, err=True)


@models_app.command("show")
def show_model(
    name: Annotated[str, typer.Argument(help="A model that is here, or a folder.")],
    as_json: Annotated[bool, typer.Option("--json", help="Prints JSON.")] = False,
) -> None:
    """Shows everything that a model says about itself."""
    settings = load_settings()
    folder = read_folder(resolve(name, settings.models_dir))
    cache_dir = settings.cache_dir.expanduser()
    shown: dict[str, object] = _row(folder) | {
        "revision": folder.revision,
        "model_type": folder.model_type,
        "architecture": folder.architecture,
        "trained_dimensions": list(folder.trained_dimensions),
        "normalize": folder.normalize,
        "prompts": dict(folder.prompts),
        "default_prompt_name": folder.default_prompt_name,
        "weight_files": [file.name for file in folder.weight_files],
        "fingerprints": {precision: fingerprint(folder, precision, cache_dir) for precision in _PRECISIONS},
    }
    if as_json:
        typer.echo(json.dumps(shown, ensure_ascii=False))
        return
    table = Table("", "", show_header=False, box=None)
    for key, value in shown.items():
        table.add_row(key, value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))
    Console().print(table)


def _row(folder: ModelFolder) -> dict[str, object]:
    return {
        "id": folder.id,
        "dimensions": folder.dimensions,
        "max_tokens": folder.max_tokens,
        "pooling": folder.pooling,
        "size_bytes": sum(file.stat().st_size for file in folder.weight_files),
        "path": str(folder.path),
        "source": folder.source,
    }


def _table(rows: list[dict[str, object]]) -> Table:
    table = Table(box=None)
    for name in ("id", "dims", "tokens", "pooling", "size"):
        table.add_column(name, no_wrap=True)
    for name in ("path", "source"):
        table.add_column(name, overflow="fold")
    for row in rows:
        size = f"{int(str(row['size_bytes'])) / 1e6:,.0f} MB"
        keys = ("id", "dimensions", "max_tokens", "pooling")
        source = re.split("[,;]", str(row["source"]))[0]
        table.add_row(*(str(row[key]) for key in keys), size, str(row["path"]), source)
    return table


def _say_aside() -> Callable[[str], None]:
    """Progress goes to standard error, so that standard output is the folder alone."""
    return lambda line: typer.echo(line, err=True)
