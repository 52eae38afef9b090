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
    parts = [ids[start : start + job["texts_at_once"]] for start in range(0, len(ids), job["texts_at_once"])]
    batches = [PackedBatch(np.concatenate(part), np.array([len(text) for text in part], np.int32)) for part in parts]
    # Once unmeasured, because the first pass over a shape makes its primitives.
    for batch in batches:
        encode_all(engine, batch)
    latencies, tokens, started = [], 0, time.monotonic()
    while time.monotonic() - started < job["seconds"]:
        for batch in batches:
            begun = time.monotonic()
            encode_all(engine, batch)
            latencies.append((time.monotonic() - begun) * 1e3)
            tokens += batch.token_ids.size
    seconds = time.monotonic() - started
    print(json.dumps({"tokens": tokens, "seconds": seconds, "latencies_ms": latencies}))


if __name__ == "__main__":
    main()
