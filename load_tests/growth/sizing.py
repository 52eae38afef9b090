"""Sizing on paper: from documents a day to GPUs, cores, gigabits and money. docs/sizing.md holds what this prints.

Every assumption is an option, so that a reader puts in his own numbers.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator, Sequence
from dataclasses import fields, replace

from needs import BYTES_A_NUMBER, Assumptions, need

_DAY_S = 86_400
_BILLION = 1e9
_QUERY_TOKENS = 20
_PARTS = ("share", "share_low", "share_high", "served", "utilisation", "core_utilisation")


def tables(given: Assumptions, lengths: Sequence[int]) -> str:
    """All tables in markdown."""
    parts = (
        _rates(given, lengths),
        _machines(given, lengths),
        _queries(given),
        _billion(given, lengths),
        _money(given, lengths),
    )
    return "\n\n".join("\n".join(part) for part in parts)


def _rates(given: Assumptions, lengths: Sequence[int]) -> Iterator[str]:
    shares = (given.share_low, given.share, given.share_high)
    titles = " | ".join(f"tokens/s at {share:.0%}" for share in shares)
    yield f"| tokens a text | GFLOP a token | of it attention | {titles} | texts/s at {given.share:.0%} |"
    yield "|---:" * (len(shares) + 4) + "|"
    for tokens in lengths:
        flops = given.flops_a_token(tokens)
        attention = 1 - given.flops_a_token(0) / flops
        rates = " | ".join(f"{given.tokens_per_s(tokens, share):,.0f}" for share in shares)
        texts = given.tokens_per_s(tokens) / tokens
        yield f"| {tokens:,} | {flops / 1e9:.3f} | {attention:.1%} | {rates} | {texts:,.0f} |"


def _machines(given: Assumptions, lengths: Sequence[int]) -> Iterator[str]:
    out = " | ".join(f"out Gbit/s {name}" for name in BYTES_A_NUMBER)
    yield f"| H100s | tokens a text | texts/s | million texts a day | cores | in Gbit/s | {out} |"
    yield "|---:" * (6 + len(BYTES_A_NUMBER)) + "|"
    for gpus in (1, 8):
        for tokens in lengths:
            rate = gpus * given.tokens_per_s(tokens) * given.utilisation / tokens
            wanted = need(given, tokens, rate)
            gbit = " | ".join(f"{value:.3f}" for value in wanted.gbit_out.values())
            yield (
                f"| {gpus} | {tokens:,} | {rate:,.0f} | {rate * _DAY_S / 1e6:,.0f} | {wanted.cores:.1f} "
                f"| {wanted.gbit_in:.3f} | {gbit} |"
            )


def _queries(given: Assumptions) -> Iterator[str]:
    yield f"| queries a second, one a call | cores | GPUs for {_QUERY_TOKENS} tokens each |"
    yield "|---:|---:|---:|"
    for rate in (100, 1_000, 10_000):
        cores = rate * given.query_us / 1e6 / given.core_utilisation
        yield f"| {rate:,} | {cores:.1f} | {need(given, _QUERY_TOKENS, rate).gpus:.3f} |"


def _billion(given: Assumptions, lengths: Sequence[int]) -> Iterator[str]:
    yield (
        "| tokens a text | load | texts/s | GPUs, likely | GPUs, range | cores | in Gbit/s | out Gbit/s float32 "
        "| float16 | TB of vectors a day, float16 |"
    )
    yield "|---:|---|" + "---:|" * 8
    for tokens in lengths:
        for load, factor in (
            ("bulk, spread over the day", 1.0),
            (f"peaks of {given.peak_factor:g}", given.peak_factor),
        ):
            rate = _BILLION / _DAY_S * factor
            likely = need(given, tokens, rate)
            few, many = (
                math.ceil(need(given, tokens, rate, share).gpus) for share in (given.share_high, given.share_low)
            )
            stored = _BILLION * given.hidden * BYTES_A_NUMBER["float16"] / 1e12
            yield (
                f"| {tokens:,} | {load} | {rate:,.0f} | {math.ceil(likely.gpus)} | {few} to {many} "
                f"| {math.ceil(likely.cores)} | {likely.gbit_in:.2f} | {likely.gbit_out['float32']:.2f} "
                f"| {likely.gbit_out['float16']:.2f} | {stored:.1f} |"
            )


def _money(given: Assumptions, lengths: Sequence[int]) -> Iterator[str]:
    prices = (given.gpu_hour_low, given.gpu_hour, given.gpu_hour_high)
    yield "| tokens a text | share of peak | " + " | ".join(f"at {price:g} a GPU hour" for price in prices) + " |"
    yield "|---:" * (2 + len(prices)) + "|"
    for tokens in lengths:
        for share in (given.share_low, given.share, given.share_high):
            costs = " | ".join(f"{given.million_cost(tokens, share, price):.2f}" for price in prices)
            yield f"| {tokens:,} | {share:.0%} | {costs} |"


def main() -> None:
    """Reads the command line: an option for each assumption."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tokens", type=int, nargs="+", default=[200, 512], help="tokens a text")
    standard = Assumptions()
    for field in fields(Assumptions):
        value = getattr(standard, field.name)
        parser.add_argument(f"--{field.name.replace('_', '-')}", type=type(value), default=value, help=f"{value:g}")
    options = vars(parser.parse_args())
    for name, value in options.items():
        if min(value if isinstance(value, list) else [value]) <= 0:
            parser.error(f"--{name.replace('_', '-')} must be above 0")
    for name in _PARTS:
        if options[name] > 1:
            parser.error(f"--{name.replace('_', '-')} is a part and must not be above 1")
    lengths = options.pop("tokens")
    print(tables(replace(standard, **options), lengths))


if __name__ == "__main__":
    main()
