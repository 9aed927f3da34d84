"""The commands of ``python3 -m devcluster``."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from devcluster import build, paths
from devcluster.apiserver import ApiServer
from devcluster.errors import DevclusterError, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="devcluster", description="A real single-node Kubernetes for demo and tests."
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    command = commands.add_parser(
        "build", help="build the Go programs (all of them, or those named)"
    )
    command.add_argument("program", nargs="*")
    command.set_defaults(run=_build)

    for name, run, text in (
        ("api-up", _api_up, "start an API server without a node; prints its kubeconfig"),
        ("api-down", _api_down, "stop the API server that api-up started"),
    ):
        command = commands.add_parser(name, help=text)
        command.add_argument(
            "--state-dir",
            type=Path,
            default=paths.default_api_state(),
            help="where it lives; one API server for each directory (default: %(default)s)",
        )
        command.set_defaults(run=run)
    return parser


def _build(arguments: argparse.Namespace) -> None:
    for name, program in build.ensure(arguments.program or list(build.TOOLS)).items():
        print(f"{name} {program}")


def _api_up(arguments: argparse.Namespace) -> None:
    directory: Path = arguments.state_dir.absolute()
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    if directory.stat().st_uid != os.getuid():
        raise UsageError(f"{directory} belongs to somebody else: name another --state-dir")
    print(ApiServer(directory).start().kubeconfig)


def _api_down(arguments: argparse.Namespace) -> None:
    ApiServer(arguments.state_dir.absolute()).stop()


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code (1: it failed, and the last line says why)."""
    arguments = _parser().parse_args(argv)
    try:
        arguments.run(arguments)
    except DevclusterError as error:
        print(f"devcluster: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("devcluster: interrupted", file=sys.stderr)
        return 130
    return 0
