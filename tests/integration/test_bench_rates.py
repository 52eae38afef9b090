"""`make bench-rates` in small: the SDK and tritonclient at two rates, each on a real server with the tiny model."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "load_tests" / "peers" / "rates.py"
OPTIONS = "--rounds 1 --seconds 1 --questions-rates 20 --mixed-rates 20,40 --documents 16 --max-others 1".split()
ROWS = ["polarvec f32", "tritonclient f32"]


@pytest.mark.slow
def test_two_contestants_get_the_same_calls_and_a_row_each(tmp_path, cache, tiny_model):
    environment = {name: value for name, value in os.environ.items() if not name.startswith("POLARVEC_")}
    done = subprocess.run(
        [
            sys.executable,
            str(SCRIPT),
            "--model",
            tiny_model,
            "--peers",
            ",".join(ROWS),
            *OPTIONS,
            "--out",
            str(tmp_path),
        ],
        env=environment | {"POLARVEC_CACHE_DIR": str(cache)},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stderr + done.stdout
    rows = json.loads((tmp_path / "rates-tiny.json").read_text())["rows"]
    assert [row["row"]["name"] for row in rows] == ROWS
    assert [row["problem"] for row in rows] == ["", ""]
    assert all(row["cosine"] > 0.999 and row["peak_bytes"] > 0 for row in rows)
    stretches = [{(stretch["workload"], stretch["rate"]): stretch for stretch in row["stretches"]} for row in rows]
    assert [list(by_rate) for by_rate in stretches] == [[("questions", 20), ("mixed", 20), ("mixed", 40)]] * 2
    for place in stretches[0]:
        ours, theirs = ([call[:2] for call in by_rate[place]["answers"]] for by_rate in stretches)
        assert ours == theirs and ours
    answers = [answer for by_rate in stretches for stretch in by_rate.values() for answer in stretch["answers"]]
    assert {kind for kind, *_ in answers} == {"query", "document"}
    assert sum(not problem and latency_ms > 0 for _, _, latency_ms, problem in answers) > 0.9 * len(answers)
    assert all(stretch["cpu_s_per_mtok"] > 0 for by_rate in stretches for stretch in by_rate.values())
    table = (tmp_path / "rates-tiny.md").read_text()
    assert all(table.count(f"| {row} |") == 7 + 1 for row in ROWS), table
    assert "<svg" in (tmp_path / "rates-tiny.svg").read_text()
