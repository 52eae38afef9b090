"""`python -m polarvec_encoder inspect`: says whether and how a model folder would run here, without loading it.

One line of JSON on stdout; on refusal exit code 2 and one sentence on stderr.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from polarvec_encoder.architecture import POOLINGS, Architecture, read_architecture
from polarvec_encoder.choice import Choice, choose, choose_for_elsewhere
from polarvec_encoder.errors import ChoiceRefused, EncoderError
from polarvec_encoder.golden import parse_ids, write_golden
from polarvec_encoder.hardware import Hardware, read_hardware
from polarvec_encoder.loading import build_engine
from polarvec_encoder.weights import check_weights

_REFUSED = 2
_CHOICE_REFUSED = 3


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    options = _parser().parse_args(arguments)
    try:
        report = _inspect(options)
    except ChoiceRefused as error:
        sys.stderr.write(f"{error}\n")
        return _CHOICE_REFUSED
    except EncoderError as error:
        sys.stderr.write(f"{error}\n")
        return _REFUSED
    sys.stdout.write(json.dumps(report, ensure_ascii=False) + "\n")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="polarvec_encoder", description="Looks at a model folder.")
    inspect = parser.add_subparsers(required=True).add_parser("inspect", help="check a folder and choose how to run it")
    inspect.add_argument("--model", type=Path, required=True, help="the model folder")
    inspect.add_argument("--engine", default="auto", help="auto, openvino, cuda, torch or null")
    inspect.add_argument("--precision", default="auto", help="auto, f32, bf16, fp16, int8 or fp8")
    inspect.add_argument("--gelu", default="auto", help="auto, erf or tanh")
    inspect.add_argument("--elsewhere", action="store_true", help="another machine will run it: check names only")
    inspect.add_argument("--pooling", choices=POOLINGS, required=True)
    inspect.add_argument("--threads", type=int, default=0, help="for the golden file; 0 means all that are allowed")
    inspect.add_argument("--golden", type=Path, help="write the golden file here if there is none")
    inspect.add_argument("--golden-ids", help='token ids of its texts: "0,1,2;0,5,2"')
    return parser


def _inspect(options: argparse.Namespace) -> Mapping[str, object]:
    folder: Path = options.model
    architecture = read_architecture(folder)
    stored = check_weights(folder, architecture)
    hardware = read_hardware()
    if options.elsewhere:
        choice = choose_for_elsewhere(options.engine, options.precision, options.gelu)
    else:
        choice = choose(options.engine, options.precision, hardware, options.gelu)
    if options.golden is not None and not options.golden.exists():
        if not options.golden_ids:
            raise EncoderError("A new golden file needs --golden-ids.")
        _compute_golden(options, architecture, choice.engine, hardware)
    return {
        "engine": choice.engine,
        "precision": choice.precision,
        "gelu": choice.gelu,
        "gpus": choice.gpu_count,
        "why": choice.why,
        "architecture": architecture.name,
        "model_type": architecture.model_type,
        "dimensions": architecture.hidden,
        "layers": architecture.layers,
        "heads": architecture.heads,
        "vocabulary": architecture.vocabulary,
        "max_tokens": architecture.max_tokens,
        "stored": sorted({tensor.dtype for tensor in stored.values()}),
        "threads": options.threads or hardware.threads,
    }


def _compute_golden(options: argparse.Namespace, architecture: Architecture, serving: str, hardware: Hardware) -> None:
    """Encode the golden texts in f32 on the CPU, whatever will serve: the reference for all engines and precisions.

    Only the engine null, whose vectors are no model's, is its own reference.
    """
    reference = Choice("null" if serving == "null" else "openvino", "f32", "reference")
    threads = options.threads or hardware.threads
    engine = build_engine(options.model, architecture, options.pooling, reference, threads)
    options.golden.parent.mkdir(parents=True, exist_ok=True)
    texts = parse_ids(options.golden_ids)
    write_golden(options.golden, engine, texts, architecture.vocabulary, architecture.max_tokens)


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    sys.stderr.flush()
    # OpenVINO's global objects take their time to end, and nothing needs them to.
    os._exit(code)
