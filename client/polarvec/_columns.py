"""A column of texts to a column of vectors: what the adapters for Ray Data and Spark have in common."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, TypedDict, Unpack, cast

import numpy as np
from numpy.typing import NDArray

from polarvec._adapter_clients import AdapterClients
from polarvec._errors import (
    DeadlineExceeded,
    InvalidRequest,
    Overloaded,
    PolarvecError,
    ServerError,
    Unavailable,
)
from polarvec._requests import checked_count, embed_template
from polarvec._tls import Tls
from polarvec._types import Embeddings, Encoding, InputType, Int8Embeddings, Truncation

BadRows: TypeAlias = Literal["raise", "keep"]
_DTYPES = {"float32": np.float32, "float16": np.float16, "int8": np.int8, "binary": np.uint8}
_MAX_PAUSE_S = 15.0


class ColumnOptions(TypedDict, total=False):
    """Keyword options of the adapters for Ray Data and Spark."""

    input_type: InputType
    """"query", "document" (the default) or "raw" (no prompt)."""
    model: str
    """A model id; empty means the server's default model."""
    dimensions: int
    """Leading dimensions to keep, brought to unit length again; 0 means all."""
    truncation: Truncation
    """What happens to a text that is too long: "error" (the default) makes it a bad row, "end" or "start" cuts it."""
    fingerprint: str
    """The embedding space that is wanted, from `Client.model().fingerprint`; any other ends the job. Without it every
    process holds on to the first that it sees, which two servers with different models may answer differently."""
    bad_rows: BadRows
    """"raise" (the default) ends the job; "keep" gives such a row zeros, and the reason in a column of its own."""
    batch_size: int
    """Texts in one item of the stream, at most; 32 by default."""
    max_in_flight: int
    """With `batch_size` this bounds what one process has under way: 4 * batch_size * max_in_flight texts."""
    patience_s: float
    """How long to wait for servers that are away: 600 by default."""
    timeout_s: float
    """Seconds that a server may stay silent: 30 by default."""
    api_key: str | None
    """Sent as a bearer token."""
    tls: Tls | None
    """Encrypts the connection. Paths are read by each worker; give the PEM as bytes where workers lack the files."""


def check_column(column: str, there: Iterable[object]) -> None:
    """Raises InvalidRequest if there is no such column."""
    names = [str(name) for name in there]
    if column not in names:
        raise InvalidRequest(f"There is no column {column!r}; there are: {', '.join(names)}.")


@dataclass(frozen=True, slots=True)
class EmbeddedColumn:
    """Vectors of a column, in its order; a bad row has zeros."""

    values: NDArray[Any]
    """(N, D), or (N, D/8) uint8 for binary."""
    scales: NDArray[np.float32] | None
    """(N,) for int8, otherwise None."""
    reasons: list[str | None]
    """Why a row has no vector; None where it has one."""


class ColumnEmbedder:
    """Embeds columns; a copy in another process makes its own connections when it first needs them."""

    def __init__(
        self,
        target: str | list[str],
        *,
        encoding: Encoding = "float32",
        **options: Unpack[ColumnOptions],
    ) -> None:
        """Connects to nothing yet.

        Args:
            target: host:port of a server, or of several that share the work.
            encoding: "float32", "float16", "int8" or "binary".
            **options: See `ColumnOptions`.

        Raises:
            InvalidRequest: An option has a value that cannot work.
        """
        self.encoding: Encoding = encoding
        self.keeps_bad_rows = options.get("bad_rows", "raise") == "keep"
        self._patience_s = options.get("patience_s", 600.0)
        self._fingerprint = options.get("fingerprint", "")
        self._dimensions = 0
        self._model = options.get("model", "")
        self._batch_size = checked_count("batch_size", options.get("batch_size", 32))
        self._input_type: InputType = options.get("input_type", "document")
        self._vector_options: dict[str, Any] = {
            "model": self._model,
            "dimensions": options.get("dimensions", 0),
            "truncation": options.get("truncation", "error"),
            "priority": "bulk",
        }
        embed_template(input_type=self._input_type, encoding=encoding, **self._vector_options)
        self.clients = AdapterClients(
            target,
            api_key=options.get("api_key"),
            tls=options.get("tls"),
            timeout_s=options.get("timeout_s"),
            max_in_flight=options.get("max_in_flight"),
        )

    def embed(self, texts: Sequence[object]) -> EmbeddedColumn:
        """Embeds a column, waiting for servers that are away.

        Raises:
            InvalidRequest: A row is bad and bad rows are not kept, or the embedding space is not the wanted one.
            PolarvecError: The servers failed.
        """
        give_up_s, pause_s = float("inf"), 1.0
        while True:
            try:
                return self._embed(texts)
            except (Unavailable, DeadlineExceeded, Overloaded) as error:
                pause_s = max(pause_s, error.retry_after_s or 0.0)
                give_up_s = min(give_up_s, time.monotonic() + self._patience_s)
                if time.monotonic() + pause_s > give_up_s:
                    raise
            time.sleep(pause_s)
            pause_s = min(2 * pause_s, _MAX_PAUSE_S)

    def _embed(self, texts: Sequence[object]) -> EmbeddedColumn:
        column = self._empty(len(texts))
        for row, text in enumerate(texts):
            if not isinstance(text, str) or not text or text.isspace():
                reason, what = ("EMPTY_TEXT", "empty") if isinstance(text, str) else ("INVALID_ROW", "no text")
                self._refuse(column, row, f"is {what}.", reason)
        good = [row for row, reason in enumerate(column.reasons) if reason is None]
        # One text without a finite vector fails its whole item: each of them goes again by itself.
        suspects = [row for row, _ in self._fill(column, texts, good, self._batch_size)]
        for row, error in self._fill(column, texts, suspects, 1):
            self._refuse(column, row, f"cannot be embedded: {error.message}", error.reason)
        return column

    def _fill(
        self, column: EmbeddedColumn, texts: Sequence[object], rows: Sequence[int], batch_size: int
    ) -> list[tuple[int, PolarvecError]]:
        """Embeds some rows of a column; returns those that have no finite vector, with the error."""
        failed = []
        stream = self.clients.blocking().embed_stream(
            [cast("str", texts[row]) for row in rows],
            input_type=self._input_type,
            encoding=self.encoding,
            batch_size=batch_size,
            **self._vector_options,
        )
        with closing(stream):
            # The stream first: taken to its end, it ends its calls; left before it, they would count as cancelled.
            for item, row in zip(stream, rows, strict=True):
                if item.error is None:
                    self._check_fingerprint(item.fingerprint)
                    _put(column, row, item.embedding)
                elif _is_not_finite(item.error):
                    failed.append((row, item.error))
                elif isinstance(item.error, InvalidRequest) and item.error.text_index is not None:
                    self._refuse(column, row, f"cannot be embedded: {item.error.message}", item.error.reason)
                else:
                    raise item.error
        return failed

    def _empty(self, row_count: int) -> EmbeddedColumn:
        if not self._dimensions:
            model = self.clients.blocking().model(self._model)
            self._check_fingerprint(model.fingerprint)
            self._dimensions = self._vector_options["dimensions"] or model.dimensions
        columns = self._dimensions // 8 if self.encoding == "binary" else self._dimensions
        return EmbeddedColumn(
            np.zeros((row_count, columns), dtype=_DTYPES[self.encoding]),
            np.zeros(row_count, dtype=np.float32) if self.encoding == "int8" else None,
            [None] * row_count,
        )

    def _refuse(self, column: EmbeddedColumn, row: int, what: str, reason: str = "INVALID_ROW") -> None:
        if not self.keeps_bad_rows:
            raise InvalidRequest(
                f'Row {row} of a batch {what} Clean the input, or give bad_rows="keep".', reason=reason
            )
        column.reasons[row] = reason

    def _check_fingerprint(self, fingerprint: str) -> None:
        self._fingerprint = self._fingerprint or fingerprint
        if fingerprint != self._fingerprint:
            raise InvalidRequest(
                f"A server's embedding space is {fingerprint}, and {self._fingerprint} is wanted; "
                "serve the same model everywhere."
            )


def _put(column: EmbeddedColumn, row: int, embedding: Embeddings | None) -> None:
    if isinstance(embedding, Int8Embeddings):
        assert column.scales is not None  # noqa: S101 - for the type checker; made for int8.
        column.values[row], column.scales[row] = embedding.values, embedding.scales
    else:
        column.values[row] = embedding


def _is_not_finite(error: PolarvecError) -> bool:
    return isinstance(error, ServerError) and error.reason == "NON_FINITE"
