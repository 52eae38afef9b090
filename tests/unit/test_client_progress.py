"""The bar that progress=True shows, and that nothing needs tqdm without it."""

from __future__ import annotations

import sys
from typing import Any, ClassVar

import pytest
import tqdm.auto


class Bar(tqdm.auto.tqdm):  # type: ignore[misc]  # tqdm ships no types
    """A real bar that a test finds again."""

    made: ClassVar[list[Bar]] = []

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.made.append(self)


@pytest.fixture
def bars(monkeypatch: pytest.MonkeyPatch) -> list[Bar]:
    monkeypatch.setattr(tqdm.auto, "tqdm", Bar)
    monkeypatch.setattr(Bar, "made", [])
    return Bar.made


def test_list_is_counted_to_its_end(client: Any, bars: list[Bar]) -> None:
    client.embed_documents([f"text {number}" for number in range(70)], progress=True)
    (bar,) = bars
    assert (bar.n, bar.total, bar.unit) == (70, 70, "text")


@pytest.mark.parametrize("known", [True, False], ids=["list", "generator"])
def test_stream_is_counted_text_by_text(client: Any, bars: list[Bar], known: bool) -> None:
    texts = [f"text {number}" for number in range(70)] + ["BAD"]
    items = client.embed_stream(texts if known else iter(texts), input_type="document", progress=True)
    for taken, item in enumerate(items, 1):
        assert (item.index, bars[0].n) == (taken - 1, taken)
    (bar,) = bars
    assert bar.total == (71 if known else None)


def test_abandoned_stream_closes_its_bar(client: Any, bars: list[Bar]) -> None:
    items = client.embed_stream(["text"] * 100, input_type="document", progress=True)
    next(items)
    items.close()
    assert bars[0].disable  # What tqdm does to a bar that is closed.


def test_without_progress_there_is_no_bar(client: Any, bars: list[Bar]) -> None:
    client.embed_documents(["a", "b"])
    assert len(list(client.embed_stream(["a", "b"], input_type="document"))) == 2
    assert bars == []


def test_without_tqdm_it_says_what_to_install(client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tqdm.auto", None)
    with pytest.warns(UserWarning, match=r"install the extra polarvec\[progress\]"):
        items = list(client.embed_stream(["a", "b"], input_type="document", progress=True))
    assert len(items) == 2
