"""One engine on one model, for parity.py: reads a job as JSON, encodes its texts, writes the vectors to a file.

Says on standard output, in one line of JSON, what ran, or why nothing could.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
from polarvec_encoder.architecture import read_architecture
from polarvec_encoder.batch import PackedBatch
from polarvec_encoder.choice import choose
from polarvec_encoder.engine import encode_all
from polarvec_encoder.errors import ChoiceRefused
from polarvec_encoder.hardware import read_hardware
from polarvec_encoder.loading import build_engine

# Texts that the engine gets at once, as packs of several callers would come.
_TEXTS_A_BATCH = 64


def main() -> None:
    """Runs one job."""
    job = json.load(sys.stdin)
    hardware = read_hardware()
    try:
        choice = choose(job["engine"], job["precision"], hardware, job["gelu"])
    except ChoiceRefused as error:
        print(json.dumps({"refused": str(error)}))
        return
    folder = Path(job["folder"])
    engine = build_engine(folder, read_architecture(folder), job["pooling"], choice, hardware.threads)
    ids = job["ids"]
    parts = [ids[start : start + _TEXTS_A_BATCH] for start in range(0, len(ids), _TEXTS_A_BATCH)]
    vectors = np.concatenate([encode_all(engine, PackedBatch.of_texts(part)) for part in parts])
    np.save(job["output"], vectors / np.linalg.norm(vectors, axis=1, keepdims=True))
    print(json.dumps({"ran": engine.description}))


if __name__ == "__main__":
    main()
