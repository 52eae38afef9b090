"""How close every engine comes to float32: engine x precision x model -> cosines and nDCG@10, in docs/benchmarks.md.

The reference is the plain forward pass of transformers in float32. Run with `make parity`; what this machine cannot run
stands in the table as not yet measured.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from polarvec_encoder.hardware import read_hardware
from polarvec_server.models import pull
from polarvec_server.models.folder import ModelFolder, read_folder
from tokenizers import Tokenizer

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "tests" / "quality")]

from ndcg import ndcg_one_relevant  # noqa: E402  lies among the tests
from texts import ODD  # noqa: E402

FAQ = ROOT / "tests" / "data" / "debian-faq-ko" / "faq.jsonl"
BENCHMARKS = ROOT / "docs" / "benchmarks.md"
ENCODER = ROOT / "model_repository" / "encoder" / "1"
LENGTHS = (3, 4, 7, 8, 15, 16, 17, 31, 32, 33, 63, 64, 65, 96, 127, 128, 129, 200, 256, 257, 384, 511, 512)
# The 24 layers of arctic-l in float32 take 3 ms a token on two cores, so it gets every fifth length.
LONG_MODEL, LONG_LENGTHS = "arctic-l", (3, 16, 33, 128, 257, 512)
MODELS = ("e5-small", "arctic-l-2", LONG_MODEL)
# Engine, precision, form of GELU; the first is the reference.
VARIANTS = (
    ("torch", "f32", "erf"),
    ("openvino", "f32", "erf"),
    ("openvino", "bf16", "erf"),
    ("openvino", "int8", "erf"),
    ("cuda", "f32", "erf"),
    ("cuda", "bf16", "erf"),
    ("cuda", "bf16", "tanh"),
    ("cuda", "fp16", "tanh"),
    ("cuda", "fp8", "tanh"),
)
# What is not done by then stands in the table as not measured.
BUDGET_S = 280
HEAD = "| model | engine | precision | GELU | least cosine | mean cosine | nDCG@10 |\n|---|---|---|---|---|---|---|"


@dataclass(frozen=True, slots=True)
class Corpus:
    """What one model encodes."""

    ids: list[list[int]]
    """Texts for the cosines, then questions, then answers."""
    compared: int
    """So many texts are for the cosines; 0 questions follow for models whose vectors mean nothing."""
    questions: int


def faq() -> list[dict[str, str]]:
    """The questions and answers, in Korean and English."""
    with FAQ.open(encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def windows(tokenizer: Tokenizer, lengths: Sequence[int]) -> Iterator[list[int]]:
    """Cuts texts of exactly these lengths out of Korean, English and mixed prose, each from another place."""
    rows = faq()
    korean, english = ([row[f"answer_{language}"] for row in rows] for language in ("ko", "en"))
    mixed = [text for pair in zip(korean, english, strict=True) for text in pair]
    for prose in (korean, english, mixed):
        first, *body, last = tokenizer.encode(" ".join(prose)).ids
        for place, length in enumerate(lengths):
            start = place * (len(body) - max(lengths)) // len(lengths)
            yield [first, *body[start : start + length - 2], last]


def corpus(folder: ModelFolder, lengths: Sequence[int], with_quality: bool) -> Corpus:
    """Tokenizes what a model shall encode."""
    tokenizer = Tokenizer.from_file(str(folder.tokenizer_file))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    compared = [*windows(tokenizer, lengths), *(tokenizer.encode(text).ids for text in ODD.values())]
    if not with_quality:
        return Corpus(compared, len(compared), 0)
    tokenizer.enable_truncation(folder.max_tokens)
    rows = faq()
    questions = [tokenizer.encode(folder.prompts["query"] + row["question_ko"]).ids for row in rows]
    answers = [tokenizer.encode(folder.prompts["passage"] + row["answer_ko"]).ids for row in rows]
    return Corpus([*compared, *questions, *answers], len(compared), len(rows))


def encode(
    folder: ModelFolder, texts: Corpus, variant: tuple[str, str, str], output: Path, timeout_s: float
) -> dict[str, str]:
    """Runs one engine in a process of its own."""
    engine, precision, gelu = variant
    job = {"folder": str(folder.encoder_path), "pooling": folder.pooling, "ids": texts.ids, "output": str(output)}
    job |= {"engine": engine, "precision": precision, "gelu": gelu}
    try:
        done = subprocess.run(
            [sys.executable, str(Path(__file__).with_name("parity_engine.py"))],
            input=json.dumps(job),
            env={**os.environ, "PYTHONPATH": str(ENCODER), "PYTHONUTF8": "1"},
            capture_output=True,
            text=True,
            check=False,
            timeout=max(1.0, timeout_s),
        )
    except subprocess.TimeoutExpired:
        return {"refused": "out of time"}
    if done.returncode:
        sys.exit(f"{engine} {precision} failed on {folder.id}:\n{done.stderr}")
    answer: dict[str, str] = json.loads(done.stdout.splitlines()[-1])
    return answer


def scores(found: NDArray[np.float32], expected: NDArray[np.float32], texts: Corpus) -> tuple[str, str, str]:
    """The last three columns of a row."""
    cosines = (found[: texts.compared].astype(np.float64) * expected[: texts.compared]).sum(axis=1)
    quality = ""
    if texts.questions:
        questions, answers = np.split(found[texts.compared :], [texts.questions])
        quality = f"{ndcg_one_relevant(questions, answers, np.arange(texts.questions)):.4f}"
    return f"{min(cosines.min(), 1):.6f}", f"{min(cosines.mean(), 1):.6f}", quality


def why_not(reason: str, engine: str) -> str:
    """Puts a refusal into a few words."""
    if reason == "out of time":
        return "not measured (out of time)"
    lacking = "such instructions" if engine != "cuda" else "usable GPU" if "a GPU is here" in reason else "GPU"
    return f"not yet measured (no {lacking} here)"


def rows_of(name: str, models_dir: Path, scratch: Path, deadline: float) -> Iterator[str]:
    """Measures all engines on one model."""
    folder = read_folder(pull.obtain(name, models_dir, None, lambda line: print(line, file=sys.stderr)))
    texts = corpus(folder, LONG_LENGTHS if name == LONG_MODEL else LENGTHS, with_quality=name == "e5-small")
    expected = None
    for variant in VARIANTS:
        engine, precision, gelu = variant
        started, output = time.monotonic(), scratch / f"{name}-{'-'.join(variant)}.npy"
        answer = encode(folder, texts, variant, output, deadline - started)
        if "ran" in answer:
            found = np.load(output)
            expected = found if expected is None else expected
            least, mean, quality = scores(found, expected, texts)
            if variant == VARIANTS[0]:
                least = mean = "reference"
        elif expected is None:
            sys.exit(f"the reference cannot run here: {answer['refused']}")
        else:
            least, mean, quality = why_not(answer["refused"], engine), "", ""
        row = f"| {name} | {engine} | {precision} | {gelu} | {least} | {mean} | {quality} |"
        said = answer.get("ran") or answer.get("refused")
        print(f"{row}  {time.monotonic() - started:.0f} s  {said}", flush=True)
        yield row


def machine() -> str:
    """What kind of CPU this is, as far as it matters here."""
    hardware = read_hardware()
    abilities = [name for name in (hardware.bf16, hardware.int8) if name]
    return f"{hardware.threads} threads of a CPU with {' and '.join(abilities) or 'neither bf16 nor int8'}"


def write_table(rows: Sequence[str]) -> None:
    """Puts the table between its markers in docs/benchmarks.md."""
    page = BENCHMARKS.read_text(encoding="utf-8")
    versions = ", ".join(f"{package} {version(package)}" for package in ("openvino", "torch", "transformers"))
    table = "\n".join([f"Measured on {machine()}; {versions}.", "", HEAD, *rows])
    page, count = re.subn(r"(?s)(<!-- parity -->\n).*?(\n<!-- /parity -->)", lambda m: m[1] + table + m[2], page)
    if count != 1:
        sys.exit(f"{BENCHMARKS} has no place for the table: <!-- parity --> and <!-- /parity -->.")
    BENCHMARKS.write_text(page, encoding="utf-8")


def main() -> None:
    """Measures, prints, writes."""
    parser = argparse.ArgumentParser(description="Holds every engine against transformers in float32.")
    parser.add_argument("--models", default=",".join(MODELS), help="names, separated by commas")
    parser.add_argument("--cache-dir", type=Path, default=ROOT / ".run" / "cache", help="where models are kept")
    parser.add_argument("--no-write", action="store_true", help="prints only; leaves docs/benchmarks.md alone")
    parser.add_argument("--budget-s", type=float, default=BUDGET_S, help="seconds that it may take")
    options = parser.parse_args()
    rows: list[str] = []
    deadline = time.monotonic() + options.budget_s
    with tempfile.TemporaryDirectory() as scratch:
        for name in options.models.split(","):
            rows += rows_of(name, options.cache_dir / "models", Path(scratch), deadline)
    if not options.no_write:
        write_table(rows)


if __name__ == "__main__":
    main()
