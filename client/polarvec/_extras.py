"""What an optional module says when the packages of its extra are not installed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def extra(name: str, *packages: str) -> Iterator[None]:
    """Around the imports of an optional module.

    Args:
        name: The extra of this package that installs them.
        *packages: The top-level packages that only the extra brings.

    Raises:
        ModuleNotFoundError: One of them is missing; the sentence says what to install.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in packages:
            raise
        sentence = f"This module needs the package {package}; install the extra polarvec[{name}]"
        raise ModuleNotFoundError(sentence, name=error.name) from None
