"""What a type checker makes of the package as it is installed."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

PROGRAM = Path(__file__).with_name("typed_program.py")
ROOT = Path(__file__).parents[2]


def test_mypy_strict_accepts_what_is_right_and_refuses_what_is_wrong(cache: Path) -> None:
    command = [sys.executable, "-m", "mypy", "--strict", "--config-file=", "--cache-dir", str(cache / "mypy")]
    done = subprocess.run([*command, PROGRAM.name], cwd=PROGRAM.parent, capture_output=True, text=True, timeout=240)
    complaints = dict(re.findall(r"typed_program\.py:(\d+): error: .*\[([a-z-]+)\]", done.stdout))
    lines = enumerate(PROGRAM.read_text(encoding="utf-8").splitlines(), 1)
    wanted = {str(number): found[1] for number, line in lines if (found := re.search(r"# wrong: ([a-z-]+)", line))}
    assert complaints == wanted, done.stdout + done.stderr


def test_the_wheel_says_that_it_is_typed() -> None:
    assert (ROOT / "client" / "polarvec" / "py.typed").read_bytes() == b""
