"""What the commands print: tables for people, JSON for programs, one sentence for what went wrong."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from polarvec._types import EmbeddingResult, Model, Ranking, StreamItem

_SHOWN_NUMBERS = 4
_SHOWN_CHARACTERS = 60


def complain(sentence: str) -> None:
    """One sentence on stderr."""
    sys.stderr.write(f"polarvec: {sentence}\n")


def line(text: str) -> None:
    """One line on stdout."""
    sys.stdout.write(f"{text}\n")


def stream_item(item: StreamItem) -> StreamItem:
    """One JSON object on stdout, or one sentence on stderr; gives the item back."""
    if item.error is not None:
        complain(str(item.error))
    else:
        embedding = np.asarray(item.embedding).tolist()
        _json({"index": item.index, "token_count": item.token_count, "embedding": embedding})
    return item


def embeddings(texts: Sequence[str], result: EmbeddingResult) -> None:
    """A table with the first numbers of each vector."""
    rows = np.asarray(result.embeddings)
    table = _table("#", "text", "tokens", f"first {_SHOWN_NUMBERS} of {result.dimensions} numbers")
    for index, (text, count) in enumerate(zip(texts, result.token_counts, strict=True)):
        numbers = " ".join(f"{number:+.4f}" for number in rows[index, :_SHOWN_NUMBERS])
        table.add_row(str(index), _shortened(text), str(count), numbers)
    _print(table)
    line(f"model {result.model}, fingerprint {result.fingerprint}; all numbers with --json or --npy FILE")


def rankings(queries: Sequence[str], documents: Sequence[str], found: Sequence[Ranking], *, as_json: bool) -> None:
    """For each query its documents, best first."""
    for query, ranking in zip(queries, found, strict=True):
        if as_json:
            pairs = [{"document_index": index, "score": score} for index, score in ranking]
            _json({"query": query, "documents": pairs})
            continue
        table = _table("score", "#", "document", title=_shortened(query))
        for index, score in ranking:
            table.add_row(f"{score:+.4f}", str(index), _shortened(documents[index]))
        _print(table)


def models(listed: Sequence[Model], *, as_json: bool) -> None:
    """One row a model."""
    if as_json:
        # Prompts apart: they are a read-only mapping, which asdict cannot copy.
        _json([{**asdict(replace(model, prompts={})), "prompts": dict(model.prompts)} for model in listed])
        return
    table = _table("model", "dimensions", "max tokens", "pooling", "engine", "precision", "fingerprint")
    for model in listed:
        shorter = "".join(f", {dimensions}" for dimensions in model.trained_dimensions)
        table.add_row(
            escape(model.id),
            f"{model.dimensions}{shorter}",
            str(model.max_token_count),
            model.pooling,
            model.engine,
            model.precision,
            model.fingerprint,
        )
    _print(table)


def health(service: str, *, serving: bool, as_json: bool) -> None:
    """One word."""
    if as_json:
        _json({"service": service, "serving": serving})
    else:
        line("serving" if serving else "not serving")


def _table(*columns: str, title: str | None = None) -> Table:
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    for column in columns:
        table.add_column(column, no_wrap=column in {"#", "tokens", "score", "model"})
    return table


def _print(table: Table) -> None:
    # Into a pipe or a file whole rows go, however wide the terminal would be.
    Console(width=None if sys.stdout.isatty() else 200, highlight=False).print(table)


def _shortened(text: str) -> str:
    one_line = " ".join(text.split())
    return escape(one_line if len(one_line) <= _SHOWN_CHARACTERS else f"{one_line[: _SHOWN_CHARACTERS - 1]}…")


def _json(value: Any) -> None:
    line(json.dumps(value, ensure_ascii=False))
