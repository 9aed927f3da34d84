"""``python -m release version | build | images | audit``; the Makefile has a target for each."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from release import audit, build, install, provenance, version
from release.errors import ReleaseError

#: What the manifests call the images, which nobody can pull: a release names where they will be.
_REGISTRY = "inferencemodel"


def main() -> int:
    """Run one command; the exit code is 0 when it did what it says."""
    parser = argparse.ArgumentParser(prog="release", description="Makes a release of the project.")
    commands = parser.add_subparsers(dest="command", required=True)
    _version(commands.add_parser("version", help="write the version wherever it is said"))
    _build(commands.add_parser("build", help="make everything that a release consists of"))
    _images(commands.add_parser("images", help="make its images for this machine's architecture"))
    _audit(commands.add_parser("audit", help="look for known vulnerabilities in the locks"))
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


def _build(parser: argparse.ArgumentParser) -> None:
    _of_a_tree(parser)
    parser.add_argument("--images", type=Path, help="a folder with archives of `release images`")

    def run(arguments: argparse.Namespace) -> None:
        for path in build.release(_options(arguments)):
            print(path)

    parser.set_defaults(run=run)


def _images(parser: argparse.ArgumentParser) -> None:
    _of_a_tree(parser)

    def run(arguments: argparse.Namespace) -> None:
        for path in build.release_images(_options(arguments)):
            print(path)

    parser.set_defaults(run=run, images=None)


def _of_a_tree(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("version", nargs="?", default="", help="X.Y.Z, which the tree has to be")
    parser.add_argument("--output", type=Path, default=Path("dist"), help="a folder (%(default)s)")
    parser.add_argument(
        "--registry", default=_REGISTRY, help="what stands before the images' names (%(default)s)"
    )
    parser.add_argument(
        "--repository", default=install.REPOSITORY, help="the project's address (%(default)s)"
    )
    parser.add_argument("--builder", default=provenance.BUILDER, help="who makes it, as a URI")
    parser.add_argument(
        "--trial", action="store_true", help="take the tree as it is, changes and all"
    )


def _options(arguments: argparse.Namespace) -> build.Options:
    return build.Options(
        version=arguments.version,
        output=arguments.output,
        registry=arguments.registry,
        repository=arguments.repository,
        builder=arguments.builder,
        images=arguments.images,
        trial=arguments.trial,
    )


def _audit(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("locks", nargs="+", type=Path, help="lock files")
    parser.add_argument(
        "--database", default=audit.DATABASE, help="a server of OSV's API (%(default)s)"
    )

    def run(arguments: argparse.Namespace) -> None:
        print(audit.run(arguments.locks, arguments.database))

    parser.set_defaults(run=run)


if __name__ == "__main__":
    sys.exit(main())
