"""Generates polarvec_proto/ from polarvec/v1/*.proto, or checks that the committed code is what would be generated.

The virtual path `polarvec_proto/v1` makes protoc write imports that fit the package, without editing its output.
"""

import argparse
import filecmp
import sys
import tempfile
from pathlib import Path

import google.rpc
from grpc_tools import protoc


def generate(proto: Path, target: Path) -> None:
    """Writes the generated files of `proto`/polarvec/v1 below `target`."""
    includes = Path(next(iter(google.rpc.__path__))).parent.parent
    arguments = [
        "protoc",
        f"-Ipolarvec_proto/v1={proto / 'polarvec' / 'v1'}",
        f"-I{includes}",
        f"-I{Path(protoc.__file__).parent / '_proto'}",
        *(f"--{plugin}_out={target}" for plugin in ("python", "pyi", "grpc_python")),
        *(f"polarvec_proto/v1/{file.name}" for file in sorted((proto / "polarvec" / "v1").glob("*.proto"))),
    ]
    if protoc.main(arguments):
        sys.exit("protoc failed")


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("proto", type=Path, help="the folder proto/")
    parser.add_argument("--check", action="store_true", help="compare instead of writing")
    arguments = parser.parse_args()
    if not arguments.check:
        generate(arguments.proto, arguments.proto)
        return
    with tempfile.TemporaryDirectory() as scratch:
        generate(arguments.proto, Path(scratch))
        fresh = Path(scratch) / "polarvec_proto" / "v1"
        stale = [
            file.name
            for file in sorted(fresh.iterdir())
            if not filecmp.cmp(file, arguments.proto / "polarvec_proto" / "v1" / file.name, shallow=False)
        ]
    if stale:
        sys.exit(f"Not what the proto gives: {', '.join(stale)}; run `make proto` and commit.")


if __name__ == "__main__":
    main()
