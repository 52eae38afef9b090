"""Spark: a function for `DataFrame.mapInPandas` that embeds a column on one Polarvec server or on many.

from polarvec.spark import embed_partitions, embedded_schema

vectors = frame.mapInPandas(embed_partitions(["server-a:50051"], column="text"), embedded_schema(frame.schema))
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, Unpack, get_args

from polarvec._columns import BadRows, ColumnEmbedder, ColumnOptions, EmbeddedColumn, check_column
from polarvec._errors import InvalidRequest
from polarvec._extras import extra
from polarvec._targets import DEFAULT_TARGET

with extra("spark", "pyspark", "pandas", "pyarrow"):
    import pyarrow  # noqa: F401 - mapInPandas needs it; a worker without it should say so here.
    from pyspark.sql import types

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["SparkEncoding", "embed_partitions", "embedded_schema"]

SparkEncoding: TypeAlias = Literal["float32", "int8", "binary"]
"""Spark has no type for half precision."""


def embed_partitions(
    target: str | list[str] = DEFAULT_TARGET,
    *,
    column: str = "text",
    output_column: str = "embedding",
    encoding: SparkEncoding = "float32",
    **options: Unpack[ColumnOptions],
) -> Callable[[Iterator[pd.DataFrame]], Iterator[pd.DataFrame]]:
    """A function for `DataFrame.mapInPandas`; every task makes its own connection.

    Args:
        target: host:port of a server, or of several that share the work.
        column: The texts.
        output_column: The vectors: array<float>, array<tinyint> for "int8" (and OUTPUT_COLUMN_scale), binary for
            "binary" (D/8 bytes).
        encoding: "float32", "int8" or "binary".
        **options: See `ColumnOptions`; bad_rows="keep" adds OUTPUT_COLUMN_error, null for good rows.

    Raises:
        InvalidRequest: An option has a value that cannot work.
    """
    _check_encoding(encoding)
    embedder = ColumnEmbedder(target, encoding=encoding, **options)

    def embed(frames: Iterator[pd.DataFrame]) -> Iterator[pd.DataFrame]:
        try:
            for frame in frames:
                check_column(column, frame.columns)
                embedded = embedder.embed(frame[column].tolist())
                yield frame.assign(**_columns(embedded, output_column, embedder))
        finally:
            embedder.clients.close()

    return embed


def embedded_schema(
    schema: types.StructType,
    *,
    output_column: str = "embedding",
    encoding: SparkEncoding = "float32",
    bad_rows: BadRows = "raise",
) -> types.StructType:
    """The schema of what `embed_partitions` gives.

    Args:
        schema: Of the frame that goes in.
        output_column: As given to `embed_partitions`.
        encoding: As given there.
        bad_rows: As given there; Spark drops a column that the schema does not name without a word.

    Raises:
        InvalidRequest: Spark has no such encoding.
    """
    _check_encoding(encoding)
    kinds: dict[str, types.DataType] = {
        "float32": types.ArrayType(types.FloatType(), containsNull=False),
        "int8": types.ArrayType(types.ByteType(), containsNull=False),
        "binary": types.BinaryType(),
    }
    fields = [*schema.fields, types.StructField(output_column, kinds[encoding], nullable=False)]
    if encoding == "int8":
        fields.append(types.StructField(f"{output_column}_scale", types.FloatType(), nullable=False))
    if bad_rows == "keep":
        fields.append(types.StructField(f"{output_column}_error", types.StringType(), nullable=True))
    return types.StructType(fields)


def _check_encoding(encoding: str) -> None:
    known = get_args(SparkEncoding)
    if encoding not in known:
        raise InvalidRequest(f"Spark has no type for encoding {encoding!r}; give one of {', '.join(known)}.")


def _columns(embedded: EmbeddedColumn, name: str, embedder: ColumnEmbedder) -> dict[str, Any]:
    packed = embedder.encoding == "binary"
    columns: dict[str, Any] = {name: [row.tobytes() if packed else row for row in embedded.values]}
    if embedded.scales is not None:
        columns[f"{name}_scale"] = embedded.scales
    if embedder.keeps_bad_rows:
        columns[f"{name}_error"] = embedded.reasons
    return columns
