"""The command `polarvec`: finds out whether its extra is installed before it imports anything of it."""

from __future__ import annotations

import io
import sys

_USAGE_ERROR = 2
_EXTRA = {"typer", "rich", "click"}


def main() -> None:
    """Runs the command; docs/cli.md lists the exit codes."""
    # A letter that the terminal does not have is no reason to end.
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    try:
        from polarvec._commands import app
    except ModuleNotFoundError as error:
        if error.name not in _EXTRA:
            raise
        sys.stderr.write("The command polarvec needs typer and rich; install the extra polarvec[cli]\n")
        sys.exit(_USAGE_ERROR)
    try:
        app()
    except OSError as error:  # A disk that is full, a file that may not be read; typer ends quietly for `| head`.
        sys.stderr.write(f"polarvec: Cannot read or write: {error.strerror or error}; choose another file or place.\n")
        sys.exit(_USAGE_ERROR)


if __name__ == "__main__":
    main()
