"""What was measured as a table for docs/benchmarks.md, and each bar with its verdict."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Results = Mapping[str, Mapping[str, Any]]

_NOT = "not yet measured"


def markdown(results: Results, dry: bool) -> str:
    """The table of docs/benchmarks.md, then the bars."""
    engine, served, library = (_by_length(results, part) for part in ("throughput", "served", "library"))
    lines = [
        _title(results, dry),
        "",
        "| tokens a text | engine tokens/s | texts/s | share of the measured ceiling | sentence-transformers tokens/s "
        "| ratio | through the server, 32 texts a call |",
        "|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for length in sorted(engine.keys() | library.keys() | served.keys()):
        ours, theirs, server = (rows.get(length, {}) for rows in (engine, library, served))
        ratio = _ratio(ours.get("tokens_per_s"), theirs.get("encode_tokens_per_s"))
        share = f"{ours['share']:.0%}" if ours.get("share") else _NOT
        lines.append(
            f"| {length:,} | {_number(ours.get('tokens_per_s'))} | {_number(ours.get('texts_per_s'))} | {share} "
            f"| {_number(theirs.get('encode_tokens_per_s'))} | {ratio} | {_number(server.get('tokens_per_s'))} |"
        )
    lines += ["", *_accuracy(results), "", *_bars(engine, served, results, dry), "", *_failures(results)]
    return "\n".join(lines)


def _title(results: Results, dry: bool) -> str:
    if dry:
        return "DRY RUN on the CPU with a tiny model and reference operators: the numbers mean nothing."
    environment, sustained = results.get("environment", {}), results.get("products", {}).get("sustained", {})
    packages = environment.get("packages", {})
    ceiling = f"{sustained['tflops']:.0f} TFLOP/s over {sustained['seconds']:.0f} s" if sustained else _NOT
    return (
        f"{environment.get('device', 'an unknown GPU')}, torch {packages.get('torch')}, Triton language "
        f"{packages.get('triton')}; random weights of the arctic shape, bf16, tanh GELU; measured ceiling of the four "
        f"matrix products in turn: {ceiling}; clocks then: {sustained.get('clocks', _NOT)}."
    )


def _by_length(results: Results, part: str) -> dict[int, Mapping[str, Any]]:
    return {row["length"]: row for row in results.get(part, {}).get("rows", [])}


def _number(value: float | None) -> str:
    return _NOT if value is None else f"{value:,.0f}"


def _ratio(ours: float | None, theirs: float | None) -> str:
    return f"{ours / theirs:.2f}" if ours and theirs else _NOT


def _accuracy(results: Results) -> list[str]:
    rows = results.get("accuracy", {}).get("rows", [])
    lines = [
        "| precision | GELU | residual added in | least cosine to float32 | mean | greatest pair error | verdict |",
        "|---|---|---|---:|---:|---:|---|",
    ]
    for row in rows:
        if "error" in row:
            lines.append(f"| {row['precision']} | {row['gelu']} | | | | | {row['error']} |")
            continue
        place = "product" if row["residual_in_product"] else "layer norm"
        lines.append(
            f"| {row['precision']} | {row['gelu']} | {place} | {row['least_cosine']:.6f} | {row['mean_cosine']:.6f} "
            f"| {row['pair_error']:.1e} | {_verdict(row['pass'])} |"
        )
    return lines if rows else [f"Accuracy: {_NOT}."]


def _bars(engine: Mapping[int, Any], served: Mapping[int, Any], results: Results, dry: bool) -> list[str]:
    latency = results.get("throughput", {}).get("latency_ms", {})
    query = results.get("served", {}).get("query_ms", {})
    short = latency.get(16, latency.get("16", {}))
    bars = [
        ("engine, 128 tokens, tokens/s", engine.get(128, {}).get("tokens_per_s"), 850_000, True),
        ("engine, 512 tokens, tokens/s", engine.get(512, {}).get("tokens_per_s"), 800_000, True),
        ("engine, one text of 16 tokens, p50 ms", short.get("p50"), 1.0, False),
        ("server, one query, p50 ms", query.get("p50"), 4.0, False),
    ]
    for length in (128, 512):
        ours, theirs = served.get(length, {}).get("tokens_per_s"), engine.get(length, {}).get("tokens_per_s")
        bars.append((f"server / engine at {length} tokens", ours / theirs if ours and theirs else None, 0.9, True))
    lines = ["| bar | wanted | found | verdict |", "|---|---:|---:|---|"]
    for name, found, wanted, more in bars:
        sign = "at least" if more else "under"
        passed = None if found is None else (found >= wanted if more else found < wanted)
        verdict = "dry run" if dry and found is not None else _verdict(passed)
        shown = _NOT if found is None else (f"{found:,.0f}" if found > 100 else f"{found:.2f}")
        lines.append(f"| {name} | {sign} {wanted:,} | {shown} | {verdict} |")
    for part, entry in (("kernels", results.get("kernels", {}).get("pass")), *_checks(results)):
        lines.append(f"| {part} | within tolerance | | {_verdict(entry)} |")
    return lines


def _checks(results: Results) -> list[tuple[str, bool | None]]:
    return [
        (name, check.get("pass")) for name, check in results.get("robustness", {}).items() if isinstance(check, dict)
    ]


def _verdict(passed: bool | None) -> str:
    return _NOT if passed is None else ("pass" if passed else "FAIL")


def _failures(results: Results) -> list[str]:
    said = {"failed": "failed", "left_out": "was left out"}
    return [
        f"Part {name} {words}: {part[key]}."
        for key, words in said.items()
        for name, part in results.items()
        if key in part
    ]
