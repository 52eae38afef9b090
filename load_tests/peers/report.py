"""The table of a comparison in markdown, the bars that Polarvec is held to, and all of it as JSON."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Sequence
from pathlib import Path

from catalogue import Subject
from contestant import Standing
from texts import Work

_HEAD = (
    "| row | format | tokens/s | 16-token query p50 ms | CPU s / Mtok | peak MB | padding | batch | cosine | others |\n"
    "|---|---|---|---|---|---|---|---|---|---|"
)


@dataclasses.dataclass(frozen=True, slots=True)
class Bar:
    """One demand and what was measured."""

    text: str
    measured: float
    wanted: float
    at_least: bool = True

    @property
    def reached(self) -> bool:
        """Whether it is met."""
        return self.measured >= self.wanted if self.at_least else self.measured <= self.wanted

    def __str__(self) -> str:
        sign = ">=" if self.at_least else "<="
        verdict = "reached" if self.reached else "MISSED"
        return f"- {verdict}: {self.text}: {self.measured:.2f} ({sign} {self.wanted})"


def table(subject: Subject, work: Work, standings: Sequence[Standing], threads: int) -> str:
    """Markdown: rows by tokens/s, then what did not run or had wrong vectors, with the reason."""
    counts = sorted(work.token_counts)
    rounds = max((len(standing.turns) for standing in standings), default=0)
    lines = [
        f"### {subject.name}: {len(counts)} texts, {sum(counts):,} tokens ({counts[0]} to {counts[-1]}, median "
        f"{counts[len(counts) // 2]}), {threads} threads of {processor()}; median of {rounds} rounds\n",
        _HEAD,
    ]
    ranked = [standing for standing in standings if standing.ranked]
    for standing in sorted(ranked, key=lambda s: -s.median(lambda turn: turn.tokens_per_s)):
        padding = f"{standing.padding:.2f}" if standing.padding else "-"
        lines.append(
            f"| {standing.row.name} | {standing.said.get('format', '')} "
            f"| {standing.median(lambda turn: turn.tokens_per_s):,.0f} "
            f"| {standing.median(lambda turn: turn.query_ms):.2f} "
            f"| {standing.median(lambda turn: turn.cpu_s_per_mtok):,.0f} "
            f"| {standing.peak_bytes / 1e6:,.0f} | {padding} | {standing.batch_size or 'all'} "
            f"| {standing.cosine:.5f} | {max(turn.others for turn in standing.turns):.0%} |"
        )
    lines += [f"| {s.row.name} | {s.problem} ||||||||" for s in standings if not s.ranked]
    return "\n".join(lines)


def bars(standings: Sequence[Standing]) -> list[Bar]:
    """Those of the bars whose rows were measured."""
    ranked = {standing.row.name: standing for standing in standings if standing.ranked}
    libraries = [standing for standing in ranked.values() if standing.row.kind == "library"]
    infinity = [standing for name, standing in ranked.items() if name.startswith("infinity")]
    openvino = ranked.get("st openvino")
    found: list[Bar] = []
    for name, wanted in (("polarvec bf16", 1.15), ("polarvec int8", 1.8)):
        ours = ranked.get(name)
        if ours is None:
            continue
        if libraries:
            best = max(libraries, key=_tokens_per_s)
            text = f"{name} / {best.row.name} (best in process), tokens/s"
            found.append(Bar(text, _tokens_per_s(ours) / _tokens_per_s(best), wanted))
        found += [
            Bar(f"{name} / {peer.row.name}, tokens/s", _tokens_per_s(ours) / _tokens_per_s(peer), 4.0)
            for peer in infinity
        ]
        if openvino:
            ratio = _query_ms(ours) / _query_ms(openvino)
            found.append(Bar(f"{name} / st openvino, one 16-token query", ratio, 0.9, at_least=False))
    return found


def write(out: Path, subject: Subject, work: Work, standings: Sequence[Standing], threads: int) -> None:
    """Writes <model>.md (the table and the bars) and <model>.json (everything, round by round) into a folder."""
    found = bars(standings)
    lines = [table(subject, work, standings, threads), "", *map(str, found)]
    (out / f"{subject.name}.md").write_text("\n".join(lines) + "\n")
    content = {
        "model": subject.name,
        "processor": processor(),
        "threads": threads,
        "texts": len(work.documents),
        "tokens": sum(work.token_counts),
        "work": work.key,
        "rows": [dataclasses.asdict(standing) for standing in standings],
        "bars": [{**dataclasses.asdict(bar), "reached": bar.reached} for bar in found],
    }
    (out / f"{subject.name}.json").write_text(json.dumps(content, indent=1) + "\n")


def processor() -> str:
    """Its name and the number formats that it multiplies."""
    information = Path("/proc/cpuinfo").read_text()
    name = re.search(r"^model name\s*:\s*(.*)$", information, re.MULTILINE)
    wide = [flag for flag in ("avx512_vnni", "avx512_bf16", "amx_bf16", "amx_int8") if f" {flag}" in information]
    return ", ".join([name[1] if name else "unknown", *wide])


def _tokens_per_s(standing: Standing) -> float:
    return standing.median(lambda turn: turn.tokens_per_s)


def _query_ms(standing: Standing) -> float:
    return standing.median(lambda turn: turn.query_ms)
