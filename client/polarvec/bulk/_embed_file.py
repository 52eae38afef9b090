"""`embed_file`: checks a bulk job, opens its parts, runs it and puts its files in their places."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from polarvec._errors import InvalidRequest
from polarvec._requests import checked_count
from polarvec._types import Encoding, InputType, Model, Truncation
from polarvec.bulk import _spec
from polarvec.bulk._job import BulkJob, Pacing
from polarvec.bulk._journal import Journal
from polarvec.bulk._pace import BulkProgress
from polarvec.bulk._readers import Reader, open_reader
from polarvec.bulk._spec import JobSpec
from polarvec.bulk._workplace import Workplace
from polarvec.bulk._writers import JsonlWriter, Layout, NpyWriter, Writer

if TYPE_CHECKING:
    from polarvec._client import Client

_STDIN = "-"


@dataclass(frozen=True, slots=True)
class BulkSummary:
    """What a finished job has done, all of its runs together."""

    row_count: int
    """Rows of the input."""
    error_count: int
    """Bad rows among them; each has a line in the errors file."""
    token_count: int
    """Tokens embedded."""
    model: str
    fingerprint: str
    """The embedding space; vectors of different fingerprints must not be compared."""
    output: Path
    errors: Path | None
    """The file of the bad rows, if there are any."""


def embed_file(
    client: Client,
    input: str | Path,
    output: str | Path,
    *,
    input_type: InputType = "document",
    field: str = "text",
    keep: Sequence[str] = (),
    id_field: str | None = None,
    encoding: Encoding = "float32",
    model: str = "",
    dimensions: int = 0,
    truncation: Truncation = "error",
    prompt_name: str | None = None,
    prompt_text: str | None = None,
    unnormalized: bool = False,
    input_format: str | None = None,
    errors: str | Path | None = None,
    restart: bool = False,
    batch_size: int = 32,
    patience_s: float = 600.0,
    commit_interval_s: float = 5.0,
    on_progress: Callable[[BulkProgress], object] | None = None,
) -> BulkSummary:
    """Embeds a file of texts; called again after a kill, it goes on from the last commit.

    Args:
        client: Of the server, or of several.
        input: .jsonl, .csv, .tsv, .parquet or .txt (one text a line); "-" is standard input, which cannot be resumed.
        output: .parquet, .npy or .jsonl. It appears when the job is done; until then there is `OUTPUT.partial/`.
        input_type: "query", "document" or "raw" (no prompt).
        field: The column or key of the text.
        keep: Columns or keys that go along into the output.
        id_field: One of them that also names the rows in the errors file.
        encoding: "float32", "float16", "int8" or "binary".
        model: A model id; empty means the server's default.
        dimensions: Leading dimensions to keep; 0 means all.
        truncation: "error" makes a text that is too long a bad row; "end" and "start" cut it there.
        prompt_name: One of the model's prompts, in place of the one that the input type selects.
        prompt_text: A literal prefix, in place of that.
        unnormalized: Leaves the vectors as pooled instead of at unit length.
        input_format: "jsonl", "csv", "tsv", "parquet" or "text", where the input's ending does not say it.
        errors: Where bad rows go, as JSON lines; OUTPUT.errors.jsonl if not given.
        restart: Forgets an unfinished job, and replaces an output that is there.
        batch_size: Texts in one item of the stream, at most.
        patience_s: Seconds that the job waits for a server that is away.
        commit_interval_s: Seconds between two commits: the work that a kill costs at most.
        on_progress: Called twice a second.

    Raises:
        InvalidRequest: Options, input or server do not fit together, or do not fit an unfinished job.
        PolarvecError: The server failed; what is done stays, and another call goes on from there.
        OSError: A file cannot be read or written.
    """
    source, destination = None if str(input) == _STDIN else Path(input), Path(output)
    spec = JobSpec(
        input=source,
        output=destination,
        errors=destination.with_name(f"{destination.name}.errors.jsonl") if errors is None else Path(errors),
        input_format=_spec.input_format(source, input_format),
        output_format=_spec.output_format(destination),
        field=field,
        kept=tuple(dict.fromkeys((*(() if id_field is None else (id_field,)), *keep))),
        id_field=id_field,
        input_type=input_type,
        encoding=encoding,
        model=model,
        dimensions=dimensions,
        truncation=truncation,
        prompt_name=prompt_name,
        prompt_text=prompt_text,
        unnormalized=unnormalized,
    )
    spec.check()
    pacing = Pacing(patience_s, commit_interval_s, checked_count("batch_size", batch_size))
    return run_job(client, spec, pacing, restart=restart, on_progress=on_progress)


def run_job(
    client: Client,
    spec: JobSpec,
    pacing: Pacing,
    *,
    restart: bool,
    on_progress: Callable[[BulkProgress], object] | None,
) -> BulkSummary:
    """Runs a job from wherever an earlier run ended, and publishes its files; see `embed_file`."""
    with closing(open_reader(spec.input, spec.input_format, spec.field, spec.kept)) as reader:
        model = client.model(spec.model)
        with Workplace(spec.output, restart=restart) as workplace:
            journal = _journal(spec, model, workplace)
            if journal.publish is None:
                with closing(_open_writer(spec, model, reader, workplace, journal)) as writer:
                    job = BulkJob(
                        client,
                        spec,
                        reader=reader,
                        writer=writer,
                        workplace=workplace,
                        journal=journal,
                        pacing=pacing,
                        on_progress=on_progress,
                    )
                    journal = job.run()
            workplace.publish(journal.publish or {})
    return BulkSummary(
        row_count=journal.row_count,
        error_count=journal.error_count,
        token_count=journal.token_count,
        model=journal.model,
        fingerprint=journal.fingerprint,
        output=spec.output,
        errors=spec.errors if journal.error_count else None,
    )


def _open_writer(spec: JobSpec, model: Model, reader: Reader, workplace: Workplace, journal: Journal) -> Writer:
    about = {
        "polarvec.model": model.id,
        "polarvec.fingerprint": model.fingerprint,
        "polarvec.encoding": spec.encoding,
        "polarvec.dimensions": str(spec.dimensions or model.dimensions),
        "polarvec.input_type": spec.input_type,
    }
    layout = Layout(spec.encoding, spec.dimensions or model.dimensions, spec.kept, about)
    match spec.output_format:
        case "jsonl":
            return JsonlWriter(workplace.folder, layout, journal.lengths)
        case "npy":
            return NpyWriter(workplace.folder, layout, journal.lengths)
        case _:
            from polarvec.bulk._parquet_writer import ParquetWriter  # Needs pyarrow, and nothing else here does.

            kept_fields = getattr(reader, "kept_fields", None)
            return ParquetWriter(workplace.folder, layout, journal.lengths, kept_fields)


def _journal(spec: JobSpec, model: Model, workplace: Workplace) -> Journal:
    """The journal of the unfinished job, if it is this one; else a new one, on the disk.

    Raises:
        InvalidRequest: The unfinished job is another one.
    """
    fresh, found = Journal(spec.record(), model.id, model.fingerprint), workplace.load()
    if found is not None and found.row_count > 0:
        if spec.input is None:
            raise InvalidRequest("A job from standard input cannot go on where it ended; begin anew with --restart.")
        found.check_continues(fresh)
        return found
    workplace.save(fresh)
    return fresh
