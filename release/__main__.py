"""``python -m release version X.Y.Z``."""

from __future__ import annotations

import argparse
import sys

from release import version
from release.errors import ReleaseError


def main() -> int:
    """Run one command; the exit code is 0 when it did what it says."""
    parser = argparse.ArgumentParser(prog="release", description="Makes a release of the project.")
    commands = parser.add_subparsers(dest="command", required=True)
    _version(commands.add_parser("version", help="write the version wherever it is said"))
    arguments = parser.parse_args()
    try:
        arguments.run(arguments)
    except ReleaseError as error:
        print(f"release: {error}", file=sys.stderr)
        return 1
    return 0


def _version(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("version", nargs="?", help="X.Y.Z; without, the current one is printed")

    def run(arguments: argparse.Namespace) -> None:
        if arguments.version is None:
            print(version.current())
            return
        for path in version.write(arguments.version):
            print(path.relative_to(version.ROOT))

    parser.set_defaults(run=run)


if __name__ == "__main__":
    sys.exit(main())
