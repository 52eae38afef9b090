"""The engine without any server, for bench.py: reads a job as JSON, encodes for some seconds, writes what it did."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import numpy as np
from polarvec_encoder.architecture import read_architecture
from polarvec_encoder.batch import PackedBatch
from polarvec_encoder.choice import choose
from polarvec_encoder.engine import encode_all
from polarvec_encoder.hardware import read_hardware
from polarvec_encoder.loading import build_engine


def main() -> None:
    """Runs one job."""
    job = json.load(sys.stdin)
    model, hardware = Path(job["model"]), read_hardware()
    choice = choose("openvino", job["precision"], hardware)
    engine = build_engine(model, read_architecture(model), job["pooling"], choice, hardware.threads)
    ids = [np.array(text, np.int32) for text in job["ids"]]
    batch = PackedBatch(np.concatenate(ids), np.array([len(text) for text in ids], np.int32))
    # Twice, because the first pass over a shape makes its primitives.
    for _ in range(2):
        encode_all(engine, batch)
    latencies, started = [], time.monotonic()
    while time.monotonic() - started < job["seconds"]:
        begun = time.monotonic()
        encode_all(engine, batch)
        latencies.append((time.monotonic() - begun) * 1e3)
    seconds = time.monotonic() - started
    print(json.dumps({"tokens": batch.token_ids.size * len(latencies), "seconds": seconds, "latencies_ms": latencies}))


if __name__ == "__main__":
    main()
