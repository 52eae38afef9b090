"""The example of the README: index once, find again, refuse another embedding space."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "docs" / "examples" / "semantic_search.py"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The example runs in the repository's root; this stands for it, so that the store is the test's own."""
    folder = tmp_path_factory.mktemp("root")
    (folder / "tests").symlink_to(ROOT / "tests")
    return folder


@pytest.fixture(scope="module")
def search(server, folder):
    code = EXAMPLE.read_text(encoding="utf-8")
    assert "localhost:50051" in code and code.count(".splitlines()]") == 1
    # Half of the FAQ, the half with the answer, halves the time.
    code = code.replace("localhost:50051", server.target).replace(".splitlines()]", ".splitlines()[55:]]")

    def run(*question, code_change=("", "")):
        source = code.replace(*code_change)
        command = [sys.executable, "-W", "error", "-c", source, *question]
        return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120, check=False)

    return run


def test_a_question_finds_its_answer_in_other_words(search, folder):
    first = search("한글 입력은 어떻게 하나요?")
    assert first.returncode == 0, first.stderr
    hits = first.stdout.splitlines()
    assert len(hits) == 3
    assert hits[0].endswith("데비안은 영어 아닌 언어를 어떻게 지원하나요?")
    # The second run reads the vectors from disk: it would fail if it embedded the answers again.
    again = search("한글 입력은 어떻게 하나요?", code_change=("client.embed_documents", "client.nothing"))
    assert (again.returncode, again.stdout) == (0, first.stdout), again.stderr


def test_another_embedding_space_is_refused(search, folder):
    search()
    meta = folder / ".run" / "semantic-search" / "meta.json"
    stored = json.loads(meta.read_text())
    served = stored["collections"]["debian-faq"]["metadata"]["fingerprint"]
    try:
        meta.write_text(meta.read_text().replace(served, "0" * 12))
        done = search()
    finally:
        meta.write_text(json.dumps(stored))
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        f".run/semantic-search holds vectors of {'0' * 12}, the server makes {served}: delete it first\n"
    )


def test_the_readme_shows_this_very_program():
    assert f"```python\n{EXAMPLE.read_text(encoding='utf-8')}```" in (ROOT / "README.md").read_text(encoding="utf-8")
