"""`make bench-clients` in small: three ways to one server with the null engine, and the same vectors by each."""

import json
import os
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "load_tests" / "clients" / "compare.py"
OPTIONS = "--texts 1100 --rounds 1 --import-rounds 1 --rows polarvec-documents,stream,threads".split()
ROWS = ["SDK `embed_documents`", "SDK `embed_stream`", "`openai`, 4 threads", "`tritonclient`, 4 threads"]


def test_all_clients_get_the_same_vectors_and_a_row_in_the_table(tmp_path, cache, tiny_model):
    """The script itself refuses vectors that differ."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("POLARVEC_")}
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "--model", tiny_model, *OPTIONS, "--out", str(tmp_path)],
        env=environment | {"POLARVEC_CACHE_DIR": str(cache)},
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert done.returncode == 0, done.stderr + done.stdout
    results = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))
    assert list(results["turns"]) == ROWS
    for (turn,) in results["turns"].values():
        assert turn["shape"] == [1100, 64]
        assert turn["peak_bytes"] >= turn["start_peak_bytes"] > 0
    table = (tmp_path / "table.md").read_text(encoding="utf-8")
    assert all(f"| {row} |" in table for row in ROWS)
    assert table.count("\n- ") == 4
