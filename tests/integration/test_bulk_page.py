"""docs/bulk.md: its Python runs, its command works, and its options are those of the command."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import typer
from polarvec._embed_command import embed
from server_process import ServerProcess

PAGE = (Path(__file__).parents[2] / "docs" / "bulk.md").read_text(encoding="utf-8")


def test_the_options_are_those_of_the_command() -> None:
    app = typer.Typer()
    app.command()(embed)
    options = {name for parameter in typer.main.get_command(app).params for name in parameter.opts if name[:2] == "--"}
    shared = {name for name in options if name.startswith(("--target", "--api-key", "--timeout", "--tls"))}
    shared |= {"--install-completion", "--show-completion"}
    assert set(re.findall(r"(?m)^\| `(--[\w-]+)` \|", PAGE)) == options - shared


def test_the_command_and_the_python_work(tiny_server: ServerProcess, tmp_path: Path) -> None:
    rows = [json.dumps({"id": f"p{index}", "body": f"문서 {index}"}, ensure_ascii=False) for index in range(20)]
    (tmp_path / "passages.jsonl").write_text("\n".join(rows), encoding="utf-8")
    (command,) = re.findall(r"(?m)^\$ polarvec (embed .*)$", PAGE)
    program = [str(Path(sys.executable).with_name("polarvec")), *shlex.split(command), "--target", tiny_server.target]
    subprocess.run(program, cwd=tmp_path, check=True, timeout=60, capture_output=True)
    table = pq.read_table(tmp_path / "vectors.parquet")
    assert table["id"].to_pylist() == [f"p{index}" for index in range(20)]
    (tmp_path / "vectors.parquet").unlink()
    (block,) = re.findall(r"(?ms)^```python\n(.*?)^```$", PAGE)
    code = block.replace("localhost:50051", tiny_server.target)
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("20 0 ")
    again = pq.read_table(tmp_path / "vectors.parquet")
    assert again.schema.equals(table.schema, check_metadata=True)
    assert again["id"].equals(table["id"])
