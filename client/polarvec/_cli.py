"""The command `polarvec`: finds out whether its extra is installed before it imports anything of it."""

from __future__ import annotations

import sys

_USAGE_ERROR = 2
_EXTRA = {"typer", "rich", "click"}


def main() -> None:
    """Runs the command; docs/cli.md lists the exit codes."""
    try:
        from polarvec._commands import app
    except ModuleNotFoundError as error:
        if error.name not in _EXTRA:
            raise
        sys.stderr.write("The command polarvec needs typer and rich; run: pip install 'polarvec[cli]'\n")
        sys.exit(_USAGE_ERROR)
    app()


if __name__ == "__main__":
    main()
