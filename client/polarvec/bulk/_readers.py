"""Rows of text, JSONL and CSV files; the first step of a bulk job."""

from __future__ import annotations

import csv
import itertools
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

from polarvec._errors import InvalidRequest
from polarvec.bulk._lines import MAX_LINE_BYTES, Lines
from polarvec.bulk._rows import Row, bad_row, checked_row, is_utf8

_LINE_TOO_LONG = f"is a line of more than {MAX_LINE_BYTES >> 20} MiB; split it."
_NOT_UTF8 = "is not UTF-8; convert the file first, for example with iconv."
# Of the names of a record's fields, in a message.
_SHOWN_CHARACTERS = 200
# The csv module gives up at 128 KiB a field; a text may have 1 MiB.
_MAX_CSV_FIELD = 2 << 20


class Reader(Protocol):
    """Gives the rows of one input, in order, from any row on."""

    def rows(self, start: int) -> Iterator[Row]:
        """The rows from number `start` on; may be called once."""
        ...

    def fraction(self) -> float | None:
        """How much of the input has been read, 0 to 1; None if nobody knows."""
        ...

    def close(self) -> None:
        """Closes the file."""
        ...


class TextReader:
    """One text a line; an empty line is a bad row, so that row and line go together."""

    def __init__(self, path: Path | None) -> None:
        """Opens the file; None is standard input."""
        self._lines = Lines(path)
        self.fraction = self._lines.fraction
        self.close = self._lines.close

    def rows(self, start: int) -> Iterator[Row]:
        """The rows from number `start` on."""
        for number, line in enumerate(itertools.islice(self._lines, start, None), start):
            if line is None:
                yield bad_row(number, _LINE_TOO_LONG)
                continue
            try:
                yield checked_row(number, line.rstrip(b"\r\n").decode())
            except UnicodeDecodeError:
                yield bad_row(number, _NOT_UTF8, reason="INVALID_TEXT")


class JsonlReader:
    """One JSON object a line."""

    def __init__(self, path: Path | None, field: str, kept: Sequence[str]) -> None:
        """Opens the file.

        Args:
            path: The file; None is standard input.
            field: The key of the text.
            kept: Keys of values that go along; a row without one has None there.
        """
        self._lines = Lines(path)
        self._field = field
        self._kept = tuple(kept)
        self.fraction = self._lines.fraction
        self.close = self._lines.close

    def rows(self, start: int) -> Iterator[Row]:
        """The rows from number `start` on."""
        blanks: list[Row] = []  # Blank lines count where a row follows: those at the end are no rows.
        for number, line in enumerate(itertools.islice(self._lines, start, None), start):
            row = self._row(number, line)
            if line is not None and not line.strip():
                blanks.append(row)
                continue
            yield from blanks
            blanks = []
            yield row

    def _row(self, number: int, line: bytes | None) -> Row:
        if line is None:
            return bad_row(number, _LINE_TOO_LONG)
        try:
            record = json.loads(line.decode())
        except UnicodeDecodeError:
            return bad_row(number, _NOT_UTF8, reason="INVALID_TEXT")
        except json.JSONDecodeError as error:
            return bad_row(number, f"is not JSON: {error.msg} at character {error.pos}.")
        except (ValueError, RecursionError):  # A number of thousands of digits; brackets without end.
            return bad_row(number, "is not JSON that can be read.")
        if not isinstance(record, dict):
            return bad_row(number, f"is JSON of type {type(record).__name__}; give an object.")
        kept = tuple(record.get(name) for name in self._kept)
        if not is_utf8("".join(value if isinstance(value, str) else _json(value) for value in kept)):
            return bad_row(number, "keeps a value with a lone surrogate; clean it.", reason="INVALID_TEXT")
        if self._field not in record:
            there = ", ".join(record)[:_SHOWN_CHARACTERS] or "nothing"
            return bad_row(number, f'has no field "{self._field}"; it has: {there}.', kept=kept)
        return checked_row(number, record[self._field], kept)


class CsvReader:
    """Records of a CSV or TSV file whose first line names the columns; fields may be quoted and span lines."""

    def __init__(self, path: Path | None, field: str, kept: Sequence[str], *, delimiter: str) -> None:
        """Opens the file and reads the names of the columns.

        Args:
            path: The file; None is standard input.
            field: The column of the text.
            kept: Columns that go along.
            delimiter: What stands between two fields.

        Raises:
            InvalidRequest: There is no such column.
        """
        csv.field_size_limit(max(csv.field_size_limit(), _MAX_CSV_FIELD))
        self._lines = Lines(path)
        self._records = csv.reader(self._decoded(), delimiter=delimiter)
        self.fraction = self._lines.fraction
        self.close = self._lines.close
        try:
            header = next(self._records, [])
            self._text_column = column_index(header, field)
            self._kept_columns = [column_index(header, name) for name in kept]
        except BaseException:
            self.close()
            raise
        self._width = len(header)

    def rows(self, start: int) -> Iterator[Row]:
        """The rows from number `start` on."""
        for number, (record, problem) in enumerate(self._read()):
            if number < start:
                continue
            if len(record) == self._width:
                yield self._row(number, record)
            else:
                yield bad_row(number, problem or f"has {len(record)} fields where the header names {self._width}.")

    def _read(self) -> Iterator[tuple[list[str], str]]:
        """Records with what is wrong with them; empty lines are none."""
        while True:
            try:
                record = next(self._records)
            except StopIteration:
                return
            except csv.Error as error:
                yield [], f"is not CSV: {error}."
                continue
            if record:
                yield record, ""

    def _row(self, number: int, record: list[str]) -> Row:
        text, kept = record[self._text_column], tuple(record[column] for column in self._kept_columns)
        if not all(map(is_utf8, (text, *kept))):
            return bad_row(number, _NOT_UTF8, reason="INVALID_TEXT")
        return checked_row(number, text, kept)

    def _decoded(self) -> Iterator[str]:
        for line in self._lines:
            if line is None:
                raise InvalidRequest(f"A line of the CSV file has more than {MAX_LINE_BYTES >> 20} MiB; split it.")
            yield line.decode(errors="surrogateescape")


def open_reader(path: Path | None, format_: str, field: str, kept: Sequence[str] = ()) -> Reader:
    """The reader of an input.

    Args:
        path: The file; None is standard input.
        format_: One of the names in `INPUT_FORMATS`.
        field: The column or key of the text.
        kept: Columns or keys that go along.

    Raises:
        InvalidRequest: The input has not these columns.
        OSError: It cannot be opened.
    """
    match format_:
        case "text":
            return TextReader(path)
        case "jsonl":
            return JsonlReader(path, field, kept)
        case "csv" | "tsv":
            return CsvReader(path, field, kept, delimiter="," if format_ == "csv" else "\t")
    if path is None:
        raise InvalidRequest("Parquet cannot be read from standard input; give a file.")
    from polarvec.bulk._parquet import ParquetReader  # Needs pyarrow, and nothing else here does.

    return ParquetReader(path, field, kept)


def column_index(names: Sequence[str], name: str) -> int:
    """Where a column stands.

    Raises:
        InvalidRequest: There is none of that name, or more than one.
    """
    if names.count(name) != 1:
        count = "no column" if name not in names else "more than one column"
        raise InvalidRequest(f'The input has {count} "{name}"; it has: {", ".join(names) or "nothing"}.', field=name)
    return names.index(name)


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
