"""The models of one server as its processes hand them to each other: a JSON file beside the model repository."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from polarvec_server.errors import ConfigError


@dataclass(frozen=True, slots=True)
class DeployedModel:
    """Where a model lies, and how Triton computes it."""

    folder: str
    triton_name: str
    engine: str
    precision: str
    fingerprint: str
    golden_path: str
    instance_count: int = 1
    """Copies of it that Triton runs side by side, one a GPU."""


def write_deployment(path: Path, models: Sequence[DeployedModel]) -> None:
    """Writes the file."""
    path.write_text(json.dumps([asdict(model) for model in models], indent=2) + "\n")


def read_deployment(path: Path) -> list[DeployedModel]:
    """Reads the file. Raises ConfigError if there is none, or it is not one of ours."""
    try:
        return [DeployedModel(**entry) for entry in json.loads(path.read_text())]
    except (OSError, ValueError, TypeError) as error:
        raise ConfigError(f"{path} is not a file that `polarvec-server prepare` wrote.") from error
