"""What the commands print: tables for people, JSON for programs, one sentence for what went wrong."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from polarvec._bench import Findings
from polarvec._types import EmbeddingResult, Model, Ranking, StreamItem, TokenizedText

_SHOWN_NUMBERS = 4
_SHOWN_CHARACTERS = 60
_SHOWN_IDS = 16
_SHOWN_PAIRS = 50
_CONTROLS = dict.fromkeys((*range(0x20), *range(0x7F, 0xA0)))


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


def similarities(texts: Sequence[str], matrix: NDArray[Any], *, as_json: bool) -> None:
    """Every text against every other, the closer the greener; (N, N) float32."""
    if as_json:
        _json({"texts": list(texts), "similarities": matrix.tolist()})
        return
    table = _table("#", "text", *map(str, range(len(texts))))
    for column in table.columns[2:]:
        column.no_wrap = True
        column.min_width = len("+0.0000")
    others = matrix[~np.eye(len(texts), dtype=bool)]
    low, high = float(others.min()), float(others.max())
    for index, (text, row) in enumerate(zip(texts, matrix, strict=True)):
        cells = [
            Text(f"{score:+.4f}", style="dim" if column == index else _heat(score, low, high))
            for column, score in enumerate(row.tolist())
        ]
        table.add_row(str(index), _shortened(text), *cells)
    # Two spaces go before each number; of a text 16 letters tell it from others.
    if len(texts) * len("  +0.0000") + len("99  ") + 16 > _console().width:
        _pairs(texts, matrix)
    else:
        _print(table)


def _pairs(texts: Sequence[str], matrix: NDArray[Any]) -> None:
    """The closest pairs, for a matrix that is wider than the terminal."""
    firsts, seconds = np.triu_indices(len(texts), k=1)
    scores = matrix[firsts, seconds]
    best = np.argsort(-scores, kind="stable")[:_SHOWN_PAIRS]
    table = _table("score", "#", "text", "#", "text")
    for first, second, score in zip(firsts[best], seconds[best], scores[best], strict=True):
        table.add_row(f"{score:+.4f}", str(first), _shortened(texts[first]), str(second), _shortened(texts[second]))
    _print(table)
    which = f"the closest {len(best)} of {len(scores)} pairs; all" if len(best) < len(scores) else "the matrix"
    line(f"{which} with --json")


def tokens(
    texts: Sequence[str], counted: Sequence[TokenizedText], *, limit: int, with_ids: bool, as_json: bool
) -> None:
    """How many tokens each text has, against what the model reads."""
    if as_json:
        for index, count in enumerate(counted):
            row = {"index": index, "token_count": count.token_count, "too_long": count.too_long}
            _json(row | {"token_ids": count.token_ids} if with_ids else row)
        return
    table = _table("#", "text", "tokens", "", *(["token ids"] if with_ids else []))
    for index, (text, count) in enumerate(zip(texts, counted, strict=True)):
        ids = [_first(count.token_ids)] if with_ids else []
        verdict = Text("too long", style="red") if count.too_long else ""
        table.add_row(str(index), _shortened(text), str(count.token_count), verdict, *ids)
    _print(table)
    line(f"{sum(count.token_count for count in counted)} tokens; the model reads {limit} of a text")


def models(listed: Sequence[Model], *, as_json: bool) -> None:
    """One row a model."""
    if as_json:
        _json([asdict(model) for model in listed])
        return
    table = _table("model", "dimensions", "max tokens", "pooling", "engine", "precision", "fingerprint")
    for model in listed:
        table.add_row(
            escape(model.id),
            _dimensions(model),
            str(model.max_token_count),
            model.pooling,
            model.engine,
            model.precision,
            model.fingerprint,
        )
    if _console().measure(table).minimum <= _console().width:
        _print(table)
        return
    for shown in listed:
        line(f"{shown.id.translate(_CONTROLS)}\n  fingerprint {shown.fingerprint}\n  dimensions {_dimensions(shown)}")
        line(f"  max tokens {shown.max_token_count}, pooling {shown.pooling}, {shown.engine} {shown.precision}")


def model(shown: Model, *, as_json: bool) -> None:
    """Everything about one model, a line each."""
    if as_json:
        _json(asdict(shown))
        return
    table = Table(box=None, show_header=False, pad_edge=False)
    plain = ("id", "revision", "architecture", "max_token_count", "pooling", "precision", "engine", "fingerprint")
    for name in plain:
        table.add_row(name.replace("_", " "), escape(str(getattr(shown, name))))
    table.add_row("dimensions", _dimensions(shown))
    for name, prompt in shown.prompts.items():
        table.add_row(f"prompt {escape(name)}", escape(repr(prompt)))
    for name, limit in asdict(shown.limits).items():
        table.add_row(f"limit {name.replace('_', ' ')}", f"{limit:,}" if limit else "none")
    _print(table)


def health(target: str, service: str, *, serving: bool, as_json: bool) -> None:
    """One word, after the target if there are several."""
    if as_json:
        _json(({"target": target} if target else {}) | {"service": service, "serving": serving})
    else:
        line(f"{target}{' ' if target else ''}{'serving' if serving else 'not serving'}")


def bench(findings: Findings, *, as_json: bool) -> None:
    """What a load found."""
    load, percentiles = findings.load, {f"p{name}_ms": findings.percentile_ms(name) for name in (50, 95, 99)}
    loop = "closed" if load.rate_per_s is None else "open"
    if as_json:
        wanted = {"concurrency": load.concurrency} if load.rate_per_s is None else {"rate_per_s": load.rate_per_s}
        names = ("calls_per_s", "texts_per_s", "tokens_per_s")
        given = {"loop": loop, **wanted, "batch_size": load.batch_size, "elapsed_s": round(findings.elapsed_s, 2)}
        found = {"calls": len(findings.latencies_ms), **{name: round(getattr(findings, name), 1) for name in names}}
        rounded = {name: None if value is None else round(value, 1) for name, value in percentiles.items()}
        _json({**given, **found, **rounded, "errors": dict(findings.errors)})
        return
    how = f"{load.concurrency} calls under way" if load.rate_per_s is None else f"{load.rate_per_s:g} calls/s begun"
    table = _table("calls", "calls/s", "texts/s", "tokens/s", "p50 ms", "p95 ms", "p99 ms", "errors")
    table.title = f"{loop} loop, {how}, {load.batch_size} texts a call, {findings.elapsed_s:.1f} s"
    errors = ", ".join(f"{count} {name}" for name, count in findings.errors.most_common()) or "none"
    rates = (findings.calls_per_s, findings.texts_per_s, findings.tokens_per_s)
    shown = ["-" if value is None else f"{value:.1f}" for value in percentiles.values()]
    table.add_row(f"{len(findings.latencies_ms):,}", *(f"{rate:,.1f}" for rate in rates), *shown, errors)
    _print(table)


def version(text: str, *, as_json: bool) -> None:
    """One line."""
    if as_json:
        _json({"version": text})
    else:
        line(text)


def _dimensions(shown: Model) -> str:
    return ", ".join(map(str, (shown.dimensions, *shown.trained_dimensions)))


def _first(token_ids: Sequence[int]) -> str:
    shown = " ".join(map(str, token_ids[:_SHOWN_IDS]))
    return shown if len(token_ids) <= _SHOWN_IDS else f"{shown} … (all with --json)"


def _heat(score: float, low: float, high: float) -> str:
    """A colour that both light and dark terminals show."""
    place = (score - low) / (high - low) if high > low else 1.0
    return "bold green" if place > 2 / 3 else "yellow" if place > 1 / 3 else ""


def _table(*columns: str, title: str | None = None) -> Table:
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    for column in columns:
        table.add_column(column, no_wrap=column in {"#", "tokens", "score", "model", "fingerprint"})
    return table


def _print(table: Table) -> None:
    # Into a pipe or a file whole rows go, however wide the terminal would be.
    _console().print(table)


def _console() -> Console:
    return Console(width=None if sys.stdout.isatty() else 200, highlight=False)


def _shortened(text: str) -> str:
    # A control character could move the cursor or change the colours of the terminal.
    one_line = " ".join(text.split()).translate(_CONTROLS)
    return escape(one_line if len(one_line) <= _SHOWN_CHARACTERS else f"{one_line[: _SHOWN_CHARACTERS - 1]}…")


def _json(value: Any) -> None:
    # Where the terminal has another encoding, as on Windows, escapes keep it UTF-8.
    line(json.dumps(value, ensure_ascii=(sys.stdout.encoding or "").lower() not in {"utf-8", "utf8"}))
