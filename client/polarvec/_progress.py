"""A progress bar for those who ask for one; tqdm is imported only then."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def progress_bar(text_count: int, *, shown: bool) -> Iterator[Callable[[int], object]]:
    """Gives a function that takes the number of texts just done; without tqdm it warns and shows nothing.

    Args:
        text_count: All texts of the call.
        shown: Whether there is a bar at all.
    """
    if not shown:
        yield _nothing
        return
    try:
        from tqdm.auto import tqdm
    except ImportError:
        warnings.warn("progress=True needs tqdm: pip install 'polarvec[progress]'", stacklevel=4)
        yield _nothing
        return
    with tqdm(total=text_count, unit="text") as bar:
        yield bar.update


def _nothing(_: int) -> None:
    pass
