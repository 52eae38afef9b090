"""`make bench-clients`: many short texts through one client process, the SDK beside others, against the null engine.

The server has one core (or more), the client another one, so that neither takes the other's time. Rows take turns.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from catalogue import Row, rows
from imports import import_seconds
from polarvec import Client
from polarvec_server.config import load_settings
from polarvec_server.models.folder import ModelFolder, read_folder
from polarvec_server.models.pull import obtain
from report import Comparison, Turn, markdown
from texts import short_texts

# What all load tests share lies one folder up.
sys.path.append(str(Path(__file__).parents[1]))
from own_server import OwnServer

_RUNNERS = Path(__file__).with_name("runners")
_SAMPLED_TEXTS = 1000
_WARM_UP_TEXTS = 20_000
# The vectors of two ways to the same engine differ by rounding only.
_TOLERANCE = 1e-6


def turn(row: Row, job: Mapping[str, object], core: int, texts: int) -> tuple[Turn, np.ndarray]:
    """Runs one row once; returns what it cost and some of its vectors."""
    with tempfile.NamedTemporaryFile(suffix=".npy") as vectors:
        given = {**job, "way": row.way, "vectors_file": vectors.name}
        done = subprocess.run(
            ["taskset", "-c", str(core), sys.executable, str(_RUNNERS / row.script)],
            input=json.dumps(given),
            # Encoding in parallel cannot help on one core, and tokenizers would warn of our threads.
            env={**os.environ, "TOKENIZERS_PARALLELISM": "false"},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            sys.exit(f"{row.name}: {done.stderr}")
        measured = json.loads(done.stdout.splitlines()[-1])
        if measured["shape"] != [texts, job["dimensions"]] or measured["dtype"] != "float32":
            sys.exit(f"{row.name}: vectors of shape {measured['shape']} in {measured['dtype']}")
        return {**measured, "texts_per_s": texts / measured["wall_s"]}, np.load(vectors.name)


def compare(options: argparse.Namespace, chosen: Sequence[Row]) -> Comparison:
    """Starts the server, lets the rows take turns, and holds their vectors against each other."""
    folder = read_folder(obtain(options.model, load_settings(model=options.model).models_dir, None, print))
    texts = short_texts(options.texts, options.seed)
    turns: dict[Row, list[Turn]] = {row: [] for row in chosen}
    with OwnServer(options.model, cores=options.server_cores, engine="null") as server:
        job = _job(options, folder, server, texts)
        mean_tokens = _warm_up(server, texts)
        expected: np.ndarray | None = None
        for number in range(options.rounds):
            # Back and forth, so that no row always follows the same one.
            for row in chosen if number % 2 == 0 else reversed(chosen):
                measured, vectors = turn(row, job, options.client_core, len(texts))
                expected = vectors if expected is None else expected
                if not np.abs(vectors - expected).max() <= _TOLERANCE:  # NaN too.
                    sys.exit(f"{row.name}: other vectors than {chosen[0].name}")
                turns[row].append(measured)
                print(f"round {number + 1}: {row.name}: {measured['texts_per_s']:,.0f} texts/s", flush=True)
    imports = import_seconds(options.import_rounds, options.client_core)
    return Comparison(options.model, folder.dimensions, len(texts), mean_tokens, options.batch_size, turns, imports)


def _job(options: argparse.Namespace, folder: ModelFolder, server: OwnServer, texts: Sequence[str]) -> dict:
    return {
        "texts": texts,
        "warm_up_texts": min(len(texts), 8 * options.batch_size),
        "sample_step": max(1, len(texts) // _SAMPLED_TEXTS),
        "batch_size": options.batch_size,
        "in_flight": 4,
        "model": folder.id,
        "dimensions": folder.dimensions,
        "target": server.target,
        "openai_url": server.openai_url,
        "triton_target": server.triton_target,
        "tokenizer_file": str(folder.tokenizer_file),
        "prompt": folder.prompts.get("passage", folder.prompts.get("document", "")),
    }


def _warm_up(server: OwnServer, texts: Sequence[str]) -> float:
    """Gives the server its first work, so that the first row does not pay for it; returns tokens a text."""
    with Client(server.target) as client:
        result = client.embed_detailed(texts[:_WARM_UP_TEXTS], input_type="document")
    return float(np.mean(result.token_counts))


def _picked(wanted: str) -> list[Row]:
    parts = [part for part in wanted.split(",") if part]
    chosen = [row for row in rows() if not parts or any(part in row.key for part in parts)]
    if not chosen:
        sys.exit(f"There is no such row; there are {', '.join(row.key for row in rows())}.")
    return chosen


def main() -> None:
    """Reads the command line."""
    cores = sorted(os.sched_getaffinity(0))
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="e5-small", help="its tokenizer, prompts and dimensions; never its weights")
    parser.add_argument("--texts", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=3, choices=range(1, 100), metavar="N", help="turns of each row")
    parser.add_argument("--rows", default="", help="such as polarvec,openai-threads; empty means all")
    parser.add_argument("--batch-size", type=int, default=512, help="texts a call, for clients that do not cut lists")
    parser.add_argument("--import-rounds", type=int, default=10, metavar="N")
    parser.add_argument("--client-core", type=int, default=cores[-1])
    parser.add_argument("--server-cores", type=lambda text: {int(core) for core in text.split(",")})
    parser.add_argument("--seed", type=int, default=7, help="the same seed gives the same texts")
    parser.add_argument("--out", type=Path, default=Path("build/clients"), help="folder of the JSON and the table")
    options = parser.parse_args()
    options.server_cores = options.server_cores or set(cores) - {options.client_core} or set(cores)
    comparison = compare(options, _picked(options.rows))
    options.out.mkdir(parents=True, exist_ok=True)
    raw = {"turns": {row.name: turns for row, turns in comparison.turns.items()}, "imports": comparison.imports}
    raw |= {"options": {name: str(value) for name, value in vars(options).items()}}
    (options.out / "results.json").write_text(json.dumps(raw, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    (options.out / "table.md").write_text(markdown(comparison) + "\n", encoding="utf-8")
    print("\n" + markdown(comparison))


if __name__ == "__main__":
    main()
