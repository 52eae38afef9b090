"""Settled rows to Parquet: an Arrow stream that grows while the job runs, turned into row groups at its end."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from polarvec._extras import extra
from polarvec.bulk._append_file import AppendFile
from polarvec.bulk._rows import Settled
from polarvec.bulk._writers import Layout

with extra("bulk", "pyarrow"):
    import pyarrow as pa
    import pyarrow.parquet as pq

_ROW_GROUP_BYTES = 32 << 20
_ELEMENTS = {"float32": pa.float32(), "float16": pa.float16(), "int8": pa.int8(), "binary": pa.uint8()}


class ParquetWriter:
    """Columns row, the kept ones, token_count, embedding (fixed-size lists) and, for int8, scale; no bad rows."""

    _SPOOL = "rows.arrows"
    _FINAL = "rows.parquet"

    def __init__(
        self, folder: Path, layout: Layout, lengths: Mapping[str, int], kept_fields: Sequence[Any] | None
    ) -> None:
        """Opens the spool.

        Args:
            folder: The job's.
            layout: Of the rows.
            lengths: What `sync` last returned; empty for a new job.
            kept_fields: The types of the kept columns; None makes them strings, and JSON text where they are not.
        """
        self._folder = folder
        self._layout = layout
        self._as_strings = kept_fields is None
        fields = [pa.field(name, pa.string()) for name in layout.kept] if kept_fields is None else list(kept_fields)
        self._schema = _schema(layout, fields)
        self._spool = AppendFile(folder / self._SPOOL, lengths.get(self._SPOOL, 0))
        self.close = self._spool.close
        if self._spool.byte_count == 0:
            self._begin()

    def _begin(self) -> None:
        try:
            self._spool.append(self._schema.serialize())
        except BaseException:
            self.close()
            raise

    def append(self, rows: Sequence[Settled]) -> None:
        """Takes a block of rows."""
        good = [settled for settled in rows if settled.item is not None]
        if not good:
            return
        values, scales = self._layout.stack(good)
        flat = pa.array(values.reshape(-1), type=_ELEMENTS[self._layout.encoding])
        columns = [pa.array([settled.row.number for settled in good], type=pa.int64())]
        for index, field in enumerate(list(self._schema)[1 : 1 + len(self._layout.kept)]):
            kept = [settled.row.kept[index] for settled in good]
            columns.append(pa.array([_string(value) for value in kept] if self._as_strings else kept, type=field.type))
        columns.append(pa.array([settled.item.token_count for settled in good if settled.item], type=pa.int32()))
        columns.append(pa.FixedSizeListArray.from_arrays(flat, self._layout.columns))
        if len(scales):
            columns.append(pa.array(scales))
        self._spool.append(pa.RecordBatch.from_arrays(columns, schema=self._schema).serialize())

    def sync(self) -> dict[str, int]:
        """Brings everything to the disk."""
        return {self._SPOOL: self._spool.sync()}

    def finish(self, output: Path) -> dict[str, Path]:
        """Writes the spool's rows as a Parquet file, one row group in memory at a time."""
        self.sync()
        final = self._folder / self._FINAL
        # Numbers of vectors neither repeat nor compress; the other columns do both.
        plain = ("embedding.list.element", "embedding.list.item")
        others = [field.name for field in self._schema if field.name != "embedding"]
        with (
            pa.OSFile(str(self._folder / self._SPOOL)) as source,
            pa.ipc.open_stream(source) as stream,
            pq.ParquetWriter(
                final,
                self._schema,
                compression={name: "zstd" for name in others} | dict.fromkeys(plain, "none"),
                use_dictionary=list(self._layout.kept),
                write_statistics=others,
            ) as parquet,
        ):
            for table in _row_groups(stream):
                parquet.write_table(table, row_group_size=max(1, table.num_rows))
        with closing(AppendFile(final, final.stat().st_size)) as written:
            written.sync()
        return {self._FINAL: output}


def _schema(layout: Layout, kept: Sequence[Any]) -> Any:
    vector = pa.list_(pa.field("element", _ELEMENTS[layout.encoding], nullable=False), layout.columns)
    fields = [
        pa.field("row", pa.int64(), nullable=False),
        *kept,
        pa.field("token_count", pa.int32(), nullable=False),
        pa.field("embedding", vector, nullable=False),
    ]
    if layout.encoding == "int8":
        fields.append(pa.field("scale", pa.float32(), nullable=False))
    return pa.schema(fields, metadata=dict(layout.about or {}))


def _row_groups(stream: Any) -> Iterator[Any]:
    batches, byte_count = [], 0
    for batch in stream:
        batches.append(batch)
        byte_count += batch.nbytes
        if byte_count >= _ROW_GROUP_BYTES:
            yield pa.Table.from_batches(batches)
            batches, byte_count = [], 0
    if batches:
        yield pa.Table.from_batches(batches)


def _string(value: Any) -> str | None:
    return value if value is None or isinstance(value, str) else json.dumps(value, ensure_ascii=False)
