"""The engine without any server: reads a job as JSON, encodes for some seconds, writes what it did. Used by bench.py."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import numpy as np
from polarvec_encoder.batch import PackedBatch
from polarvec_encoder.choice import make_engine
from polarvec_encoder.engine import encode_all


def main() -> None:
    """Runs one job."""
    job = json.load(sys.stdin)
    engine = make_engine(Path(job["model"]), job["pooling"], "openvino", job["precision"], threads=0)
    ids = [np.array(text, np.int32) for text in job["ids"]]
    batch = PackedBatch(np.concatenate(ids), np.array([len(text) for text in ids], np.int32))
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
