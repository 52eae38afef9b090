"""A progress bar for those who ask for one; tqdm is imported only then."""

from __future__ import annotations

import warnings
from collections.abc import AsyncGenerator, Callable, Generator, Iterator, Sized
from contextlib import aclosing, closing, contextmanager

from polarvec._types import StreamItem


@contextmanager
def progress_bar(text_count: int | None, *, shown: bool = True) -> Iterator[Callable[[int], object]]:
    """Gives a function that takes the number of texts just done; without tqdm it warns and shows nothing.

    Args:
        text_count: All texts of the call; None if nobody knows.
        shown: Whether there is a bar at all.
    """
    if not shown:
        yield _nothing
        return
    try:
        from tqdm.auto import tqdm
    except ImportError:
        warnings.warn("progress=True needs tqdm: install the extra polarvec[progress]", stacklevel=4)
        yield _nothing
        return
    with tqdm(total=text_count, unit="text") as bar:
        yield bar.update


def shown_progress(
    items: Generator[StreamItem, None, None], text_count: int | None
) -> Generator[StreamItem, None, None]:
    """The items as they are, with a bar that counts them."""
    with closing(items), progress_bar(text_count) as advance:
        for item in items:
            advance(1)
            yield item


async def async_shown_progress(
    items: AsyncGenerator[StreamItem, None], text_count: int | None
) -> AsyncGenerator[StreamItem, None]:
    """The items as they are, with a bar that counts them."""
    async with aclosing(items):
        with progress_bar(text_count) as advance:
            async for item in items:
                advance(1)
                yield item


def text_count_of(texts: object) -> int | None:
    """How many texts there are, where that is known before they are read."""
    return len(texts) if isinstance(texts, Sized) else None


def _nothing(_: int) -> None:
    pass
