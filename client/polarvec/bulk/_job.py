"""The bulk job: rows in, vectors out, with a commit every few seconds that a later run goes on from."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING

from polarvec._errors import (
    DeadlineExceeded,
    InvalidRequest,
    Overloaded,
    PolarvecError,
    ServerError,
    Unavailable,
)
from polarvec._results import changed_fingerprint
from polarvec._types import StreamItem
from polarvec.bulk._append_file import AppendFile
from polarvec.bulk._journal import Journal
from polarvec.bulk._pace import BulkProgress, Pace
from polarvec.bulk._readers import Reader
from polarvec.bulk._rows import Problem, Row, Settled
from polarvec.bulk._spec import JobSpec
from polarvec.bulk._workplace import Workplace
from polarvec.bulk._writers import Writer, json_line

if TYPE_CHECKING:
    from polarvec._client import Client

ERRORS_SPOOL = "errors.jsonl"
# Rows of one EmbedStream call, and so the most that are read ahead where many of them are bad.
_SEGMENT_ROWS = 65_536
_BLOCK_ROWS = 256
_PROGRESS_INTERVAL_S = 0.5
_MAX_PAUSE_S = 15.0
# So many bad rows and no good one at the start of a job: the wrong field or the wrong file.
_HOPELESS_ROWS = 1_000


@dataclass(frozen=True, slots=True)
class Pacing:
    """When a job gives up and commits, and in what portions it sends."""

    patience_s: float
    """How long a server may be away before the job stops."""
    commit_interval_s: float
    """The work that a kill costs at most; the disk's part of it is some milliseconds."""
    batch_size: int
    """Texts in one item of the stream."""


class BulkJob:
    """One run of a job, from wherever the last one ended."""

    def __init__(
        self,
        client: Client,
        spec: JobSpec,
        *,
        reader: Reader,
        writer: Writer,
        workplace: Workplace,
        journal: Journal,
        pacing: Pacing,
        on_progress: Callable[[BulkProgress], object] | None,
    ) -> None:
        """Takes its parts, open, from `embed_file`."""
        self._client = client
        self._spec = spec
        self._reader = reader
        self._writer = writer
        self._workplace = workplace
        self._journal = journal
        self._pacing = pacing
        self._on_progress = on_progress
        self._errors = AppendFile(workplace.folder / ERRORS_SPOOL, journal.lengths.get(ERRORS_SPOOL, 0))
        self._id_column = spec.kept.index(spec.id_field) if spec.id_field is not None else None
        self._rows = reader.rows(journal.row_count)
        self._rows_ended = False
        self._pending: deque[Row] = deque()  # Read, in order, and not settled.
        self._block: list[Settled] = []  # Settled and not written.
        self._row_count, self._error_count = journal.row_count, journal.error_count
        self._token_count = journal.token_count
        self._pace = Pace()
        self._reported_s = self._committed_s = self._moved_s = time.monotonic()

    def run(self) -> Journal:
        """Embeds what is left; returns the journal of the whole job, ready to be published.

        Raises:
            PolarvecError: The job cannot go on; what is done is on the disk.
            OSError: The input cannot be read, or the output not written.
        """
        with closing(self._errors):
            self._report(now_s=float("inf"))
            pause_s = 1.0
            while self._pending or not self._rows_ended:
                before = self._row_count
                try:
                    self._embed_segment()
                except (Unavailable, DeadlineExceeded, Overloaded) as error:
                    self._commit()
                    pause_s = 1.0 if self._row_count > before else min(2 * pause_s, _MAX_PAUSE_S)
                    self._wait_or_raise(error, max(pause_s, error.retry_after_s or 0.0))
                except PolarvecError:
                    self._commit()
                    raise
            return self._finish()

    def _embed_segment(self) -> None:
        """One EmbedStream call, over all that is pending and some rows more."""
        spec = self._spec
        stream = self._client.embed_stream(
            self._texts(),
            input_type=spec.input_type,
            encoding=spec.encoding,
            batch_size=self._pacing.batch_size,
            **spec.vector_options(),
        )
        with closing(stream):
            for item in stream:
                self._settle(item)
                now_s = time.monotonic()
                if now_s - self._committed_s >= self._pacing.commit_interval_s:
                    self._commit()
                if now_s - self._reported_s >= _PROGRESS_INTERVAL_S:
                    self._report(now_s)
        self._settle_bad_rows()

    def _texts(self) -> Iterator[str]:
        """The texts of a segment; what an earlier segment left comes first."""
        for row in tuple(self._pending):
            if row.problem is None:
                yield row.text
        for count, row in enumerate(self._rows, 1):
            self._pending.append(row)
            if row.problem is None:
                yield row.text
            if count == _SEGMENT_ROWS:
                return
        self._rows_ended = True  # Only here: a call that breaks leaves rows that nobody has read.

    def _settle(self, item: StreamItem) -> None:
        """Books what became of the first good row that is pending."""
        self._settle_bad_rows()
        row = self._pending[0]
        if item.error is not None and item.error.reason == "NON_FINITE":
            item = self._alone(row)  # One text of the item is at fault, and the server cannot say which.
        if item.error is not None and not _is_the_texts_fault(item.error):
            raise item.error
        if item.error is None and item.fingerprint != self._journal.fingerprint:
            raise changed_fingerprint()
        self._pending.popleft()
        if item.error is not None:
            self._book(Settled(row, None, Problem.from_error(item.error, row.number)))
        else:
            self._token_count += item.token_count
            self._book(Settled(row, item))

    def _settle_bad_rows(self) -> None:
        while self._pending and (problem := self._pending[0].problem) is not None:
            self._book(Settled(self._pending.popleft(), None, problem))
            if self._row_count == self._error_count == _HOPELESS_ROWS:
                raise InvalidRequest(
                    f"None of the first {_HOPELESS_ROWS} rows can be embedded: {problem.message} "
                    "Check the field and the format of the input."
                )

    def _alone(self, row: Row) -> StreamItem:
        """A text by itself, for the error of a batch."""
        spec = self._spec
        options = spec.vector_options()
        with closing(
            self._client.embed_stream([row.text], input_type=spec.input_type, encoding=spec.encoding, **options)
        ) as stream:
            return next(stream)

    def _book(self, settled: Settled) -> None:
        self._moved_s = time.monotonic()
        self._row_count += 1
        self._error_count += settled.problem is not None
        self._block.append(settled)
        if len(self._block) >= _BLOCK_ROWS:
            self._write_block()

    def _write_block(self) -> None:
        self._writer.append(self._block)
        for settled in self._block:
            if settled.problem is not None:
                self._errors.append(json_line(self._error_record(settled.row, settled.problem)))
        self._block = []

    def _error_record(self, row: Row, problem: Problem) -> dict[str, object]:
        """Never the text: an errors file is passed around more freely than the input."""
        record: dict[str, object] = {"row": row.number}
        if self._id_column is not None and row.kept:
            record["id"] = row.kept[self._id_column]
        return record | {"reason": problem.reason, "message": problem.message}

    def _commit(self) -> None:
        self._write_block()
        lengths = self._writer.sync() | {ERRORS_SPOOL: self._errors.sync()}
        self._journal = self._journal.advanced(
            row_count=self._row_count, error_count=self._error_count, token_count=self._token_count, lengths=lengths
        )
        self._workplace.save(self._journal)
        self._committed_s = time.monotonic()

    def _finish(self) -> Journal:
        self._commit()
        places = {name: str(place.absolute()) for name, place in self._writer.finish(self._spec.output).items()}
        if self._error_count:
            places = {ERRORS_SPOOL: str(self._spec.errors.absolute())} | places
        else:
            self._spec.errors.unlink(missing_ok=True)  # Of an output that this one replaces.
        self._report(now_s=float("inf"))
        self._journal = self._journal.advanced(publish=places)
        self._workplace.save(self._journal)
        return self._journal

    def _wait_or_raise(self, error: PolarvecError, pause_s: float) -> None:
        away_s = time.monotonic() - self._moved_s
        if away_s + pause_s > self._pacing.patience_s:
            raise error
        time.sleep(pause_s)

    def _report(self, now_s: float) -> None:
        if self._on_progress is None:
            return
        self._reported_s = time.monotonic() if now_s == float("inf") else now_s
        progress = self._pace.measure(
            row_count=self._row_count,
            error_count=self._error_count,
            token_count=self._token_count,
            fraction=self._reader.fraction(),
        )
        self._on_progress(progress)


def _is_the_texts_fault(error: PolarvecError) -> bool:
    """Whether a row is bad; anything else ends the job, and the row is tried again by the next run."""
    if isinstance(error, InvalidRequest):
        return error.text_index is not None
    return isinstance(error, ServerError) and error.reason == "NON_FINITE"
