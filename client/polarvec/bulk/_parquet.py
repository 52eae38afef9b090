"""Rows of a Parquet file, read a few pages at a time; the only reader that needs pyarrow."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from polarvec._errors import InvalidRequest
from polarvec._extras import extra
from polarvec.bulk._readers import column_index
from polarvec.bulk._rows import Row, checked_row

with extra("bulk", "pyarrow"):
    import pyarrow as pa
    import pyarrow.parquet as pq

_BATCH_ROWS = 512
# Pages are read through a buffer of this size, in place of a whole column of a row group at once.
_BUFFER_BYTES = 1 << 20


class ParquetReader:
    """Columns of a Parquet file."""

    def __init__(self, path: Path, field: str, kept: Sequence[str]) -> None:
        """Opens the file and looks for its columns.

        Args:
            path: The file.
            field: The column of the text.
            kept: Columns that go along.

        Raises:
            InvalidRequest: It is no Parquet file, there is no such column, or the column has no text.
        """
        try:
            self._file = pq.ParquetFile(path, buffer_size=_BUFFER_BYTES, pre_buffer=False)
        except pa.ArrowInvalid:
            raise InvalidRequest(f"{path} is not a Parquet file; name its format with --input-format.") from None
        self.close = self._file.close
        try:
            schema = self._file.schema_arrow
            text_type = schema.field(column_index(schema.names, field)).type
            if not _holds_text(text_type):
                raise InvalidRequest(f'The column "{field}" of {path} is of type {text_type}; choose one of strings.')
            self.kept_fields = [schema.field(column_index(schema.names, name)) for name in kept]
        except BaseException:
            self.close()
            raise
        self._columns = list(dict.fromkeys((field, *kept)))
        self._names = (field, *kept)
        self._row_count = self._file.metadata.num_rows
        self._read_count = 0

    def fraction(self) -> float | None:
        """How much of the file has been read, 0 to 1."""
        return self._read_count / self._row_count if self._row_count else None

    def rows(self, start: int) -> Iterator[Row]:
        """The rows from number `start` on; the row groups before it are not read."""
        groups = [self._file.metadata.row_group(index).num_rows for index in range(self._file.num_row_groups)]
        ends = list(itertools.accumulate(groups))
        first = next((index for index, end in enumerate(ends) if end > start), len(groups))
        self._read_count = start
        number = ends[first - 1] if first else 0
        if first == len(groups):
            return
        batches = self._file.iter_batches(
            batch_size=_BATCH_ROWS, row_groups=list(range(first, len(groups))), columns=self._columns, use_threads=False
        )
        for batch in batches:
            columns = [batch.column(name).to_pylist() for name in self._names]
            for text, *kept in zip(*columns, strict=True):
                if number >= start:
                    self._read_count = number + 1
                    yield checked_row(number, text, tuple(kept))
                number += 1


def _holds_text(kind: Any) -> bool:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))
