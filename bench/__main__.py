"""``python -m bench COMMAND``: one measurement each; ``--help`` lists them."""

from __future__ import annotations

import argparse
import sys

from bench import (
    cache,
    changes,
    console,
    cost,
    operator_figures,
    poller,
    poller_idle,
    poller_large,
    rollouts,
    scale,
    soak,
    traffic,
    version_change,
)
from demo.errors import DemoError
from demo.setup import Options


def parser() -> argparse.ArgumentParser:
    """The command line; each command's ``run`` takes what was given."""
    parser = argparse.ArgumentParser(prog="bench", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    change = commands.add_parser(
        "version-change", help="time a version from its upload to all replicas, beside its floor"
    )
    change.add_argument("--rounds", type=int, default=5)
    change.set_defaults(run=lambda given: version_change.run(given.rounds, Options()))
    steady = commands.add_parser(
        "traffic", help="count failed requests while versions change and replicas come and go"
    )
    steady.add_argument("--rounds", type=int, default=3)
    steady.add_argument("--rate", type=float, default=20, help="requests/s of each load")
    steady.set_defaults(run=lambda given: traffic.run(given.rounds, given.rate))
    pinned = commands.add_parser(
        "changes", help="time going back to the version before, and requests during changes"
    )
    pinned.add_argument("--rounds", type=int, default=50)
    pinned.add_argument("--rate", type=float, default=20, help="requests/s of each load")
    pinned.add_argument("--drain", action="store_true", help="with spec.rollout.drain")
    pinned.set_defaults(run=lambda given: changes.run(given.rounds, given.rate, drain=given.drain))
    operator = commands.add_parser(
        "operator", help="measure the operator with many resources, and how it grows"
    )
    operator.add_argument("--sizes", type=int, nargs="+", default=[100, 1000, 5000])
    operator.add_argument("--fleet", type=int, default=1000, help="resources whose pods report")
    operator.add_argument("--steady", type=float, default=300, help="seconds to look at the fleet")
    operator.set_defaults(
        run=lambda given: operator_figures.run(given.sizes, given.fleet, given.steady)
    )
    wide = commands.add_parser(
        "scale", help="measure one operator and two shards with thousands of reporting models"
    )
    wide.add_argument("--models", type=int, default=10_000, help="the most; 1,000 and 3,000 before")
    wide.add_argument("--only", action="store_true", help="just so many, and keep nothing")
    wide.add_argument("--steady", type=float, default=60, help="seconds to look at each at rest")
    wide.set_defaults(run=lambda given: scale.run(given.models, given.steady, only=given.only))
    many = commands.add_parser(
        "rollouts", help="measure a rollout of every resource at once, beside all replicas at once"
    )
    many.add_argument("--resources", type=int, default=1000)
    many.add_argument("--waiting", type=float, default=60, help="seconds to look at waiting ones")
    many.set_defaults(run=lambda given: rollouts.run(given.resources, given.waiting))
    fetch = commands.add_parser(
        "poller", help="time the fetching of versions beside what else could fetch them"
    )
    fetch.add_argument("--rounds", type=int, default=5)
    fetch.add_argument("--idle", type=float, default=90, help="seconds of an idle poller")
    fetch.add_argument(
        "--only",
        nargs="+",
        default=[],
        choices=[case.key for case in poller.CASES],
        help="of all cases these, and keep nothing",
    )
    fetch.set_defaults(run=lambda given: poller.run(given.rounds, given.idle, given.only))
    rest = commands.add_parser(
        "poller-rest", help="measure a poller that has nothing to do, and what its imports cost"
    )
    rest.add_argument("--seconds", type=float, default=90)
    rest.set_defaults(run=lambda given: poller_idle.report(given.seconds))
    large = commands.add_parser(
        "poller-large", help="time 6 GB beside 1 GB, in the memory that a poller's container has"
    )
    large.add_argument("--rounds", type=int, default=3)
    large.set_defaults(run=lambda given: poller_large.run(given.rounds))
    shared = commands.add_parser(
        "cache", help="time new replicas with and without a shared cache, and count its fetches"
    )
    shared.add_argument("--rounds", type=int, default=3)
    shared.add_argument("--megabytes", type=int, default=1000, help="of the version")
    shared.add_argument("--bandwidth", default="100M", help="of a pod's way to the store")
    shared.add_argument("--pods", type=int, default=10, help="at once on one cold cache")
    shared.set_defaults(
        run=lambda given: cache.run(given.rounds, given.megabytes, given.bandwidth, given.pods)
    )
    long = commands.add_parser(
        "soak", help="serve for hours with new versions every minute, and judge what grows"
    )
    long.add_argument("--minutes", type=float, default=60)
    long.add_argument("--models", type=int, default=20)
    long.set_defaults(run=lambda given: soak.run(given.minutes, given.models))
    price = commands.add_parser(
        "cost", help="count what a model asks of its store and of the API server"
    )
    price.add_argument("--seconds", type=float, default=60, help="of each thing at rest")
    price.add_argument("--only", choices=["stores", "api"], help="of both this, and keep nothing")
    price.set_defaults(run=lambda given: cost.run(given.seconds, given.only))
    pages = commands.add_parser(
        "console", help="time the console's first paint and its updates with many models"
    )
    pages.add_argument("--models", type=int, default=1000)
    pages.add_argument("--rounds", type=int, default=5, help="of the first paint")
    pages.add_argument("--changes", type=int, default=100)
    pages.add_argument("--rest", type=float, default=60, help="seconds to look at it at rest")
    pages.set_defaults(
        run=lambda given: console.run(given.models, given.rounds, given.changes, given.rest)
    )
    return parser


def main() -> int:
    """Run one measurement; the exit code is 0 when its figure was reached."""
    given = parser().parse_args()
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
