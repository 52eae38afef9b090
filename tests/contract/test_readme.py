"""The README's Python runs as it stands, and its commands exist."""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


def test_the_first_python_block_runs(server):
    """The second is docs/examples/semantic_search.py, which has its own test."""
    block = BLOCKS[0]
    code = block.replace("localhost:50051", server.target)
    assert code != block
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("[0 1]") and "\n[1 0]" in done.stdout


def test_the_command_to_try_works(server):
    command = re.search(r"\$ \.venv/bin/(polarvec rank .*)", README)
    program, *arguments = re.findall(r"'[^']*'|\S+", command[1])
    done = subprocess.run(
        [Path(sys.executable).with_name(program), *(a.strip("'") for a in arguments), "--target", server.target],
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.index("서울") < done.stdout.index("세종대왕")


def test_make_targets_exist():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"\bmake ([a-z-]+)", README)) <= targets
