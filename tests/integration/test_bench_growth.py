"""`make bench-growth` in small: one part against a real server, its table, its plot and its figures."""

import json
import os
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "load_tests" / "growth" / "bench_growth.py"


def test_the_part_text_count_measures_a_server(tmp_path, cache, tiny_model):
    environment = {name: value for name, value in os.environ.items() if not name.startswith("POLARVEC_")}
    options = f"--model {tiny_model} --long-model {tiny_model} --parts text-count --most 300 --seconds 0.2 --quick"
    done = subprocess.run(
        [sys.executable, str(SCRIPT), *options.split(), "--out", str(tmp_path)],
        env=environment | {"POLARVEC_CACHE_DIR": str(cache)},
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert done.returncode == 0, done.stderr + done.stdout
    rows = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))["text-count"]
    assert [(row["series"], row["x"]) for row in rows] == [
        (series, count)
        for series, counts in (
            ("null, embed_stream", (10, 300)),
            ("null, embed_documents", (100,)),
            ("engine, embed_stream", (10, 300)),
        )
        for count in counts
    ]
    for row in rows:
        measured = row["measured"]
        assert measured["errors"] == {}
        assert measured["tokens"] == 16 * measured["texts"] > 0
        assert min(measured["packs"], measured["batches"]) > 0
        assert sum(measured["cpu_s"].values()) > 0
        assert row["worker_rss_mb"] > 100
    table = (tmp_path / "table.md").read_text(encoding="utf-8")
    assert table.count("\n| 300 | ") == 2
    ET.parse(tmp_path / "growth-text-count.svg")
