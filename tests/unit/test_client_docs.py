"""docs/sdk.md: its examples run as they stand, and there is one for every public name."""

from __future__ import annotations

import ast
import doctest
import re
from collections.abc import Iterator
from pathlib import Path

import polarvec
import pytest
from server_process import ServerProcess
from unit.certificates import make_certificate

PAGE = (Path(__file__).parents[2] / "docs" / "sdk.md").read_text(encoding="utf-8")
EXAMPLES = doctest.DocTestParser().get_examples(PAGE)
METHODS = [name for name in vars(polarvec.Client) if not name.startswith("_")]


def used_names() -> Iterator[str]:
    """Names and attributes in the examples, those of import lines left out."""
    for example in EXAMPLES:
        for node in ast.walk(ast.parse(example.source)):
            if isinstance(node, ast.Name):
                yield node.id
            elif isinstance(node, ast.Attribute):
                yield node.attr


def test_examples_do_what_the_page_says(server: ServerProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = make_certificate("root")
    own = make_certificate("client", issuer=root)
    for name, content in (("ca.pem", root.pem), ("client.pem", own.pem), ("client.key", own.key)):
        (tmp_path / name).write_bytes(content)
    monkeypatch.chdir(tmp_path)
    port = server.target.rpartition(":")[2]
    page = PAGE.replace("localhost:50051", server.target).replace("127.0.0.1:50051", f"127.0.0.1:{port}")
    test = doctest.DocTestParser().get_doctest(page, {}, "sdk.md", "docs/sdk.md", 0)
    complaints: list[str] = []
    failed, tried = doctest.DocTestRunner().run(test, out=complaints.append)
    assert tried == len(EXAMPLES) > 60
    assert not failed, "".join(complaints)


@pytest.mark.parametrize("name", polarvec.__all__)
def test_every_public_name_has_an_example(name: str) -> None:
    assert name in set(used_names())


@pytest.mark.parametrize("name", METHODS)
def test_every_method_has_an_example(name: str) -> None:
    assert name in set(used_names())


def test_every_python_block_is_made_of_examples() -> None:
    for block in re.findall(r"(?ms)^```python\n(.*?)^```$", PAGE):
        assert block.startswith(">>> ")


@pytest.mark.parametrize(
    "name",
    [name for name in polarvec.__all__ if callable(thing := getattr(polarvec, name)) and thing.__module__ != "typing"],
)
def test_every_public_class_and_function_is_documented(name: str) -> None:
    documentation = getattr(polarvec, name).__doc__
    assert documentation
    assert not documentation.startswith(f"{name}(")  # What a dataclass without a docstring gets.
