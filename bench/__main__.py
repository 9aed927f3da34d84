"""``python -m bench version-change | traffic | operator-restart``."""

from __future__ import annotations

import argparse
import sys

from bench import operator_restart, version_change
from demo.errors import DemoError
from demo.setup import Options


def main() -> int:
    """Run one measurement; the exit code is 0 when its figure was reached."""
    parser = argparse.ArgumentParser(prog="bench", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    change = commands.add_parser(
        "version-change", help="time a version from its upload to all replicas, beside its floor"
    )
    change.add_argument("--rounds", type=int, default=5)
    change.set_defaults(run=lambda given: version_change.run(given.rounds, Options()))
    restart = commands.add_parser(
        "operator-restart", help="count what a restart over settled resources writes"
    )
    restart.add_argument("--resources", type=int, default=200)
    restart.set_defaults(run=lambda given: operator_restart.run(given.resources))
    given = parser.parse_args()
    try:
        given.run(given)
    except DemoError as error:
        print(f"\nbench {given.command}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
