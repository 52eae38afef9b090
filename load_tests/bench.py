"""What the server costs: served tokens a second and latencies beside the engine called directly, in one run.

Engine and server take turns, so that both see the same machine; the ratio is what counts. Run with `make bench`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from engine_core import leave_engine_alone, split_cores
from own_children import own_children
from own_server import OwnServer, roomy_queue
from polarvec import AsyncClient

ROOT = Path(__file__).resolve().parents[1]
FAQ = ROOT / "tests" / "data" / "debian-faq-ko" / "faq.jsonl"
ENCODER = ROOT / "model_repository" / "encoder" / "1"
DOCUMENTS_A_CALL = 8


@dataclass(frozen=True, slots=True)
class Round:
    """One measurement: texts and tokens done, seconds taken, milliseconds of each call."""

    tokens: int
    seconds: float
    latencies_ms: list[float]

    @property
    def tokens_per_s(self) -> float:
        """Tokens a second."""
        return self.tokens / self.seconds


def corpus() -> tuple[list[str], list[str]]:
    """Korean questions, and answers of all lengths: real texts, in a fixed order that mixes the lengths."""
    with FAQ.open(encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    return [row["question_ko"] for row in rows], [row["answer_ko"] for row in rows]


def numbered(number: int, text: str) -> str:
    """A text that no other call has: the server computes equal ones in flight once."""
    return f"{10_000 + number} {text}"


def numbered_all(texts: Sequence[str]) -> list[str]:
    """The same for the engine alone, so that both compute as many tokens."""
    return [numbered(number, text) for number, text in enumerate(texts)]


def engine_round(
    model: Path,
    pooling: str,
    precision: str,
    ids: Sequence[Sequence[int]],
    texts_at_once: int,
    seconds: float,
    cores: Collection[int],
) -> Round:
    """The engine alone, in a process of its own, with as many texts at once as the callers have in hand."""
    request = {"model": str(model), "pooling": pooling, "precision": precision, "ids": list(ids)}
    request |= {"texts_at_once": texts_at_once, "seconds": seconds}
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("engine_alone.py"))],
        input=json.dumps(request),
        env={**os.environ, "PYTHONPATH": str(ENCODER)},
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: os.sched_setaffinity(0, cores),
    )
    if done.returncode:
        sys.exit(done.stderr)
    return Round(**json.loads(done.stdout.splitlines()[-1]))


async def server_round(
    target: str, calls: Sequence[Sequence[str]], input_type: str, callers: int, seconds: float
) -> Round:
    """Closed loop: `callers` callers, each with one call at a time, for about `seconds`."""
    latencies: list[float] = []
    tokens, turn = 0, 0
    async with AsyncClient(target, timeout_s=300) as client:
        await client.embed_detailed(list(calls[0]), input_type=input_type, truncation="end")
        started = time.monotonic()

        async def caller() -> None:
            nonlocal tokens, turn
            while time.monotonic() - started < seconds:
                texts = [numbered(turn, text) for text in calls[turn % len(calls)]]
                turn += 1
                sent = time.monotonic()
                result = await client.embed_detailed(texts, input_type=input_type, truncation="end")
                latencies.append((time.monotonic() - sent) * 1e3)
                tokens += sum(result.token_counts)

        await asyncio.gather(*(caller() for _ in range(callers)))
        return Round(tokens, time.monotonic() - started, latencies)


async def measure(server: OwnServer, rounds: int, seconds: float, engine_cores: Collection[int]) -> list[str]:
    """Runs engine and server in turns and returns the rows of the table."""
    questions, answers = corpus()
    async with AsyncClient(server.target, timeout_s=300) as client:
        model = await client.model()
        tokenized = {
            "query": await client.tokenize(numbered_all(questions), input_type="query", include_ids=True),
            "document": await client.tokenize(numbered_all(answers), input_type="document", include_ids=True),
        }
    from polarvec_server.config import load_settings
    from polarvec_server.models.folder import read_folder
    from polarvec_server.models.store import resolve

    folder = read_folder(resolve(model.id, load_settings(model=model.id).models_dir))
    works = {
        "queries, 1 text a call": ("query", [[text] for text in questions]),
        f"documents, {DOCUMENTS_A_CALL} texts a call": (
            "document",
            [answers[start : start + DOCUMENTS_A_CALL] for start in range(0, len(answers) - DOCUMENTS_A_CALL, 5)],
        ),
    }
    rows = []
    for name, (input_type, calls) in works.items():
        ids = [text.token_ids for text in tokenized[input_type]]
        lengths = np.array([len(text_ids) for text_ids in ids])
        rows.append(
            f"\n{name}: {lengths.min()} to {lengths.max()} tokens, mean {lengths.mean():.0f}; {model.precision}"
        )
        rows.append(
            "\n| callers | served tokens/s | engine tokens/s | ratio | p50 ms | p99 ms |\n|---|---|---|---|---|---|"
        )
        # Unmeasured, as for the engine: the first pass over a shape makes its primitives.
        await server_round(server.target, calls, input_type, 4, 2 * seconds)
        for callers in (1, 8, 64):
            served, alone = [], []
            for _ in range(rounds):
                alone.append(
                    engine_round(
                        folder.encoder_path,
                        folder.pooling,
                        model.precision,
                        ids,
                        callers * len(calls[0]),
                        seconds,
                        engine_cores,
                    )
                )
                served.append(await server_round(server.target, calls, input_type, callers, seconds))
            ratio = statistics.median(s.tokens_per_s / a.tokens_per_s for s, a in zip(served, alone, strict=True))
            latencies = np.concatenate([r.latencies_ms for r in served])
            rows.append(
                f"| {callers} | {statistics.median(r.tokens_per_s for r in served):,.0f} "
                f"| {statistics.median(r.tokens_per_s for r in alone):,.0f} | {ratio:.2f} "
                f"| {np.percentile(latencies, 50):.1f} | {np.percentile(latencies, 99):.1f} |"
            )
            print(rows[-1], flush=True)
    return rows


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="e5-small")
    parser.add_argument("--precision", default="auto", choices=["auto", "f32", "bf16"])
    parser.add_argument("--rounds", type=int, default=3, help="engine and server take turns so many times")
    parser.add_argument("--seconds", type=float, default=5.0, help="length of one measurement")
    parser.add_argument(
        "--apart", action="store_true", help="the engine on one core and everything else on the others, not all on all"
    )
    arguments = parser.parse_args()
    settings, engine_cores = roomy_queue(), os.sched_getaffinity(0)
    if arguments.apart:
        core, others = split_cores()
        engine_cores = {core}
        os.sched_setaffinity(0, others)
        settings["engine_threads"] = "1"
    with (
        own_children(),
        OwnServer(
            arguments.model, cores=engine_cores, precision=arguments.precision, openai_port="0", **settings
        ) as server,
    ):
        print(server.ready_line)
        if arguments.apart:
            leave_engine_alone(server.pid, os.sched_getaffinity(0))
        rows = asyncio.run(measure(server, arguments.rounds, arguments.seconds, engine_cores))
    print("\n" + "\n".join(rows))


if __name__ == "__main__":
    main()
