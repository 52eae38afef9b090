"""Ray Data: a callable for `Dataset.map_batches` that embeds a column on one Polarvec server or on many.

dataset = ray.data.read_parquet("passages/").map_batches(
    polarvec.ray.Embedder,
    fn_constructor_args=[["server-a:50051", "server-b:50051"]],
    fn_constructor_kwargs={"column": "text"},
    concurrency=4,
    batch_size=1024,
)
"""

from __future__ import annotations

from typing import Any, TypeVar, Unpack, cast

import numpy as np

from polarvec._columns import ColumnEmbedder, ColumnOptions, EmbeddedColumn, check_column
from polarvec._extras import extra
from polarvec._targets import DEFAULT_TARGET
from polarvec._types import Encoding

with extra("ray", "ray", "pandas", "pyarrow"):
    import pandas as pd
    import pyarrow as pa
    import ray.data  # noqa: F401 - a worker without it should say so here.

__all__ = ["Embedder"]

BatchT = TypeVar("BatchT")


class Embedder:
    """Adds vectors to batches, as an actor (the class given to `map_batches`) or in tasks (an instance given to it)."""

    def __init__(
        self,
        target: str | list[str] = DEFAULT_TARGET,
        *,
        column: str = "text",
        output_column: str = "embedding",
        encoding: Encoding = "float32",
        **options: Unpack[ColumnOptions],
    ) -> None:
        """Connects to nothing yet: the worker does, with its first batch.

        Args:
            target: host:port of a server, or of several that share the work.
            column: The texts.
            output_column: The vectors: (D,) each. "int8" adds OUTPUT_COLUMN_scale, float32.
            encoding: "float32", "float16", "int8" or "binary" (packed bits, D/8 uint8).
            **options: See `ColumnOptions`; bad_rows="keep" adds OUTPUT_COLUMN_error, empty for good rows.

        Raises:
            InvalidRequest: An option has a value that cannot work.
        """
        self._column = column
        self._output_column = output_column
        self._embedder = ColumnEmbedder(target, encoding=encoding, **options)

    def __call__(self, batch: BatchT) -> BatchT:
        """The batch with the columns of the vectors; dicts of arrays, pandas frames and Arrow tables keep their kind.

        Raises:
            InvalidRequest: There is no such column.
            PolarvecError: See `ColumnOptions.bad_rows` and `patience_s`.
        """
        if isinstance(batch, pd.DataFrame):
            return cast("BatchT", self._frame(batch))
        if isinstance(batch, pa.Table):
            return cast("BatchT", self._table(batch))
        columns = cast("dict[str, Any]", batch)
        check_column(self._column, columns)
        embedded = self._embedder.embed(list(columns[self._column]))
        return cast("BatchT", {**columns, **dict(self._columns(embedded))})

    def _frame(self, frame: Any) -> Any:
        check_column(self._column, frame.columns)
        embedded = self._embedder.embed(frame[self._column].tolist())
        added = {name: list(values) if values.ndim == 2 else values for name, values in self._columns(embedded)}
        return frame.assign(**added)

    def _table(self, table: Any) -> Any:
        check_column(self._column, table.column_names)
        embedded = self._embedder.embed(table.column(self._column).to_pylist())
        for name, values in self._columns(embedded):
            array = pa.array(values.reshape(-1))
            if values.ndim == 2:
                array = pa.FixedSizeListArray.from_arrays(array, values.shape[1])
            table = table.append_column(name, array)
        return table

    def _columns(self, embedded: EmbeddedColumn) -> list[tuple[str, Any]]:
        columns: list[tuple[str, Any]] = [(self._output_column, embedded.values)]
        if embedded.scales is not None:
            columns.append((f"{self._output_column}_scale", embedded.scales))
        if self._embedder.keeps_bad_rows:
            columns.append((f"{self._output_column}_error", np.array([reason or "" for reason in embedded.reasons])))
        return columns
