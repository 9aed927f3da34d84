"""``python -m chaos``: faults for a fleet; ``--help`` says which."""

from __future__ import annotations

import argparse
import os
import random
import sys

from chaos import plan, run
from chaos.fleet import FLEET
from demo.console import say
from demo.errors import DemoError
from devcluster import DevclusterError


def main() -> int:
    """Run once; the exit code is 0 where nothing was found."""
    parser = argparse.ArgumentParser(prog="chaos", description=__doc__)
    parser.add_argument("--seed", type=int, help="of an earlier run, to repeat it (a new one)")
    parser.add_argument("--minutes", type=float, default=60, help="of faults (%(default)s)")
    parser.add_argument("--nodes", type=int, default=3, help="of the cluster (%(default)s)")
    parser.add_argument(
        "--only", nargs="+", default=[], choices=plan.NAMES, metavar="FAULT", help="of all these"
    )
    parser.add_argument("--keep", action="store_true", help="leave the cluster up")
    parser.add_argument("--plan", action="store_true", help="print what would be done, and when")
    given = parser.parse_args()
    seed = random.SystemRandom().randrange(10**6) if given.seed is None else given.seed
    if given.plan:
        _show(seed, given.minutes * 60, several=given.nodes > 1, only=given.only)
        return 0
    if os.environ.get("KUBECONFIG"):
        parser.error("it does harm, and only to the embedded cluster: unset KUBECONFIG")
    say(f"SEED={seed}")
    try:
        run.run(seed, given.minutes, given.nodes, given.only, keep=given.keep)
    except (DemoError, DevclusterError) as error:
        print(f"\nchaos with SEED={seed}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def _show(seed: int, seconds: float, *, several: bool, only: list[str]) -> None:
    faults = plan.faults(seed, seconds, several=several, only=only)
    uploads = plan.uploads(seed, seconds, [model.name for model in FLEET])
    lines = [
        (each.at, f"{each.kind.name} for {each.seconds:.0f} s, number {each.number}")
        for each in faults
    ] + [(each.at, f"upload {each.model} ({each.quality})") for each in uploads]
    for at, text in sorted(lines):
        say(f"{at:7.1f} s  {text}")


if __name__ == "__main__":
    sys.exit(main())
