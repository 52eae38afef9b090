"""Generates the code of every .proto below proto/, or checks that the committed code is what would be generated.

Virtual paths make protoc write imports that fit the packages, without editing its output.
"""

import argparse
import filecmp
import sys
import tempfile
from pathlib import Path

import google.rpc
from grpc_tools import protoc

# Where the protos of an API lie, the Python package that their code becomes, and the folder which that package is in.
APIS = (
    ("proto/polarvec/v1", "polarvec_proto/v1", "proto"),
    ("proto/tei/v1", "polarvec_server/tei_proto", "server"),
)


def generate(source: Path, package: str, target: Path) -> None:
    """Writes the code of the .proto files in `source` as `package` below `target`."""
    includes = Path(next(iter(google.rpc.__path__))).parent.parent
    arguments = [
        "protoc",
        f"-I{package}={source}",
        f"-I{includes}",
        f"-I{Path(protoc.__file__).parent / '_proto'}",
        *(f"--{plugin}_out={target}" for plugin in ("python", "pyi", "grpc_python")),
        *(f"{package}/{file.name}" for file in sorted(source.glob("*.proto"))),
    ]
    if protoc.main(arguments):
        sys.exit("protoc failed")


def find_stale(root: Path) -> list[str]:
    """Returns the committed files that are not what the protos give."""
    stale = []
    for source, package, folder in APIS:
        with tempfile.TemporaryDirectory() as scratch:
            generate(root / source, package, Path(scratch))
            for file in sorted((Path(scratch) / package).iterdir()):
                committed = root / folder / package / file.name
                if not committed.exists() or not filecmp.cmp(file, committed, shallow=False):
                    stale.append(f"{package}/{file.name}")
    return stale


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("proto", type=Path, help="the folder proto/")
    parser.add_argument("--check", action="store_true", help="compare instead of writing")
    arguments = parser.parse_args()
    root = arguments.proto.resolve().parent
    if not arguments.check:
        for source, package, folder in APIS:
            generate(root / source, package, root / folder)
    elif stale := find_stale(root):
        sys.exit(f"Not what the proto gives: {', '.join(stale)}; run `make proto` and commit.")


if __name__ == "__main__":
    main()
