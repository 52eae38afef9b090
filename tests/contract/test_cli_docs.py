"""docs/cli.md and docs/integrations.md hold what the command and the adapters do: tables are compared, examples run."""

import json
import re
import shlex
from pathlib import Path

import pytest
import typer
from polarvec._commands import app
from typer.testing import CliRunner

DOCS = Path(__file__).parents[2] / "docs"
CLI = (DOCS / "cli.md").read_text(encoding="utf-8")
INTEGRATIONS = (DOCS / "integrations.md").read_text(encoding="utf-8")
COMMANDS = typer.main.get_command(app).commands
BLOCKS = re.findall(r"(?ms)^```python\n(.*?)^```$", INTEGRATIONS)
ANSWERS = ["한글은 세종대왕이 창제하였다.\n"] * 3 + ["polarvec/e5-small 384\n"]


def console(page: str) -> list[tuple[str, str]]:
    """Commands and what they print."""
    blocks = re.findall(r"(?ms)^```console\n(.*?)^```$", page)
    return [
        (command, printed)
        for block in blocks
        for command, printed in re.findall(r"(?m)^\$ (.*)\n((?:[^$].*\n)*)", block)
    ]


def masked(printed: str) -> list[str]:
    """Without digits, because another CPU's numbers may differ in their last places, and without padding."""
    return [re.sub(r"\d", "0", line.rstrip()) for line in printed.splitlines()]


def test_every_command_is_documented_and_no_other():
    assert re.findall(r"(?m)^\| `polarvec (\w+)`", CLI) == list(COMMANDS)


def test_every_command_writes_json():
    table = CLI.split("## For scripts")[1].split("## ")[0]
    assert re.findall(r"(?m)^\| `(\w+)` \|", table) == list(COMMANDS)
    for name, command in COMMANDS.items():
        assert "--json" in {option for parameter in command.params for option in parameter.opts}, name


def test_the_options_that_commands_share_are_documented_and_no_other():
    rows = re.findall(r"(?m)^\| `(--[\w-]+)` \| (?:`(\w+)`)? ?\|", CLI)
    shared = [parameter for parameter in COMMANDS["health"].params if parameter.rich_help_panel]
    assert rows == [(parameter.opts[0], parameter.envvar or "") for parameter in shared]
    for name in COMMANDS.keys() - {"version"}:
        assert {parameter.name for parameter in shared} <= {parameter.name for parameter in COMMANDS[name].params}


def test_the_exit_codes_of_the_help_are_those_of_the_docs():
    documented = re.findall(r"(?m)^\| (\d+) \|", CLI.split("## Exit codes")[1])
    assert re.findall(r"\b(\d+) ", app.info.epilog) == documented


@pytest.mark.parametrize(("command", "printed"), console(CLI), ids=range(len(console(CLI))))
def test_the_commands_print_what_is_shown(command, printed, server):
    result = CliRunner().invoke(app, shlex.split(command)[1:], env={"POLARVEC_TARGET": server.target})
    if command.endswith("--json"):
        assert json.loads(result.stdout).keys() == json.loads(printed).keys()
    else:
        assert masked(result.output) == masked(printed)
    assert result.exit_code == (2 if printed.startswith("polarvec:") else 0)


@pytest.mark.parametrize(("block", "answer"), list(zip(BLOCKS, ANSWERS, strict=True)), ids=range(len(BLOCKS)))
def test_the_adapters_examples_run(block, answer, server, capsys):
    code = block.replace("localhost:50051", server.target)
    assert code != block
    exec(compile(code, "docs/integrations.md", "exec"), {})
    assert capsys.readouterr().out == answer
