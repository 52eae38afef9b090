"""What a bulk job is to do: every option, checked before anything is read or written."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from polarvec._errors import InvalidRequest
from polarvec._requests import embed_template
from polarvec._types import Encoding, InputType, Truncation, VectorOptions

INPUT_FORMATS = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".csv": "csv",
    ".tsv": "tsv",
    ".parquet": "parquet",
    ".pq": "parquet",
    ".txt": "text",
}
OUTPUT_FORMATS = {".parquet": "parquet", ".pq": "parquet", ".npy": "npy", ".jsonl": "jsonl", ".ndjson": "jsonl"}
OWN_COLUMNS = ("row", "token_count", "embedding", "scale")
_STDIN = "-"
_EDGE_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class JobSpec:
    """One job; two runs with the same spec may share their work."""

    input: Path | None
    """None is standard input."""
    output: Path
    errors: Path
    input_format: str
    output_format: str
    field: str
    kept: tuple[str, ...]
    id_field: str | None
    input_type: InputType
    encoding: Encoding
    model: str
    dimensions: int
    truncation: Truncation
    prompt_name: str | None
    prompt_text: str | None
    unnormalized: bool

    def check(self) -> None:
        """Refuses what cannot work.

        Raises:
            InvalidRequest: An option does not fit.
        """
        embed_template(input_type=self.input_type, encoding=self.encoding, **self.vector_options())
        taken = [name for name in self.kept if name in OWN_COLUMNS]
        if taken:
            raise InvalidRequest(f'A column "{taken[0]}" cannot be kept: the job writes one itself; rename it.')
        if self.kept and (self.input_format == "text" or self.output_format == "npy"):
            which = "Plain text has" if self.input_format == "text" else "An .npy file holds"
            raise InvalidRequest(f"{which} no columns to keep; leave out --keep and --id-field, or take other formats.")
        if self.output.is_dir() or not self.output.absolute().parent.is_dir():
            raise InvalidRequest(f"{self.output} is a folder or lies in none; name a file in a folder that exists.")
        if self.input is not None and self.input.absolute() in (self.output.absolute(), self.errors.absolute()):
            raise InvalidRequest("The output would replace the input; name another file.")

    def vector_options(self) -> VectorOptions:
        """The options of each gRPC call; nobody waits for a bulk job, whatever its input type."""
        return {
            "model": self.model,
            "prompt_name": self.prompt_name,
            "prompt_text": self.prompt_text,
            "dimensions": self.dimensions,
            "truncation": self.truncation,
            "unnormalized": self.unnormalized,
            "priority": "bulk",
        }

    def record(self) -> dict[str, Any]:
        """What a later run must have in common with this one, as JSON data."""
        options = {name: value for name, value in asdict(self).items() if name not in ("output", "errors")}
        return options | {"input": self._input_identity(), "kept": list(self.kept)}

    def _input_identity(self) -> dict[str, Any]:
        """Tells apart two inputs: by length, time of change and the first and last MiB. Not by name: files move."""
        if self.input is None:
            return {"name": _STDIN}
        status = self.input.stat()
        digest = hashlib.sha256()
        with self.input.open("rb") as file:
            digest.update(file.read(_EDGE_BYTES))
            file.seek(max(0, status.st_size - _EDGE_BYTES))
            digest.update(file.read(_EDGE_BYTES))
        return {"bytes": status.st_size, "changed_ns": status.st_mtime_ns, "edges_sha256": digest.hexdigest()}


def input_format(path: Path | None, named: str | None) -> str:
    """The format of the input: the one that is named, or what the file's ending says; standard input is plain text.

    Raises:
        InvalidRequest: Neither says one that is known.
    """
    if named is not None:
        return _known(named, INPUT_FORMATS)
    if path is None:
        return "text"
    if path.suffix.lower() == ".gz":
        raise InvalidRequest(f"{path} is compressed; unpack it first with gunzip.")
    if path.suffix.lower() not in INPUT_FORMATS:
        raise InvalidRequest(f"{path} ends in none of {', '.join(INPUT_FORMATS)}; name its format with --input-format.")
    return INPUT_FORMATS[path.suffix.lower()]


def output_format(path: Path) -> str:
    """The format that the output's ending says.

    Raises:
        InvalidRequest: It says none that is known.
    """
    if path.suffix.lower() not in OUTPUT_FORMATS:
        raise InvalidRequest(f"{path} ends in none of {', '.join(OUTPUT_FORMATS)}; rename the output.")
    return OUTPUT_FORMATS[path.suffix.lower()]


def _known(name: str, formats: dict[str, str]) -> str:
    if name not in formats.values():
        choices = ", ".join(dict.fromkeys(formats.values()))
        raise InvalidRequest(f"The format {name!r} is not known; give one of {choices}.")
    return name
