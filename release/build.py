"""Makes all of a release in one folder, from the images on."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from devcluster import build as programs
from devcluster.errors import DevclusterError
from release import archives, images, install, krew, notes, oci, olm, provenance, sbom, tree
from release import version as versions
from release.errors import ProgramError, ReleaseError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from release.tree import Tree

#: Which packages get into the images and the plugin.
_LOCKS = ("operator.lock", "plugin.lock", "poller.lock")
SUMS = "SHA256SUMS"


@dataclass(frozen=True, kw_only=True)
class Options:
    """What ``make release`` is told."""

    version: str
    output: Path
    registry: str
    """What stands before the images' names, such as ``ghcr.io/x``."""
    repository: str
    """The address of the project's repository, whose releases have the files."""
    builder: str = provenance.BUILDER
    images: Path | None = None
    """A folder with archives that ``make release-images`` wrote; None to build them here."""
    trial: bool = False
    """Whether the tree may have changes, and a changelog that says nothing of the version."""


def release(options: Options) -> list[Path]:
    """Make a release, and return its files.

    Raises:
        TreeError: the tree is not the one that is to be released.
        ProgramError: a program that makes a part of it failed.
        ReleaseError: a file of the tree is not as a release expects it.
    """
    found = _checked(options)
    with tempfile.TemporaryDirectory() as directory:
        source = Path(directory) / f"inferencemodel-{found.version}"
        tree.copy(versions.ROOT, source)
        indexes = _indexes(options, source, found)
        _empty(options.output)
        for name, content in _files(options, source, found, indexes):
            (options.output / name).write_bytes(content)
            say(f"{name}: {len(content):,} bytes")
    return sorted(options.output.iterdir())


def release_images(options: Options) -> list[Path]:
    """Build the images for this machine's architecture alone, for a release made elsewhere.

    Raises:
        TreeError: the tree is not the one that is to be released.
        ProgramError: an image does not build.
    """
    found = _checked(options)
    with tempfile.TemporaryDirectory() as directory:
        source = Path(directory) / f"inferencemodel-{found.version}"
        tree.copy(versions.ROOT, source)
        built = images.build(source, found)
    options.output.mkdir(parents=True, exist_ok=True)
    written = []
    for name, image in built.items():
        path = options.output / f"{name}-{image.architecture}.tar"
        path.write_bytes(oci.Index((image,)).archive(f"{name}:{found.version}"))
        written.append(path)
    return written


def say(text: str) -> None:
    """Tell how far it is."""
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


def _checked(options: Options) -> Tree:
    found = tree.read()
    if options.trial:
        tree.check_version(found, options.version)
    else:
        tree.check(found, options.version)
    return found


def _indexes(options: Options, source: Path, found: Tree) -> dict[str, oci.Index]:
    if options.images is None:
        say("building the images, from the base on")
        return {name: oci.Index((image,)) for name, image in images.build(source, found).items()}
    indexes = {}
    for name in images.NAMES:
        paths = sorted(options.images.glob(f"**/{name}-*.tar"))
        if not paths:
            raise ReleaseError(f"{options.images} has no {name}-ARCHITECTURE.tar")
        indexes[name] = oci.Index(tuple(each for path in paths for each in oci.read_archive(path)))
    return indexes


def _files(
    options: Options, source: Path, found: Tree, indexes: Mapping[str, oci.Index]
) -> Iterator[tuple[str, bytes]]:
    """Each file of the release with its content; the sums and what they are of come last."""
    digests = {name: index.digest for name, index in indexes.items()}
    references = install.References(options.registry, found.version, digests)
    sums = {}
    for name, content in _contents(options, source, found, indexes, references):
        sums[name] = archives.digest(content)
        yield name, content
    statement = provenance.statement(
        sums
        | {
            references.repository(name): digest.partition(":")[2]
            for name, digest in digests.items()
        },
        found,
        parameters={"version": found.version, "registry": options.registry},
        materials={
            f"requirements/{lock}": archives.file_digest(source / "requirements" / lock)
            for lock in _LOCKS
        },
        repository=options.repository,
        builder=options.builder,
    )
    name = "provenance.intoto.json"
    sums[name] = archives.digest(statement)
    yield name, statement
    yield SUMS, "".join(f"{sums[name]}  {name}\n" for name in sorted(sums)).encode()


def _contents(
    options: Options,
    source: Path,
    found: Tree,
    indexes: Mapping[str, oci.Index],
    references: install.References,
) -> Iterator[tuple[str, bytes]]:
    version = found.version
    base = f"{options.repository}/blob/v{version}"
    for name, index in indexes.items():
        yield f"{name}-{version}.oci.tar", index.archive(references.tagged(name))
        for image in index.images:
            bill = sbom.document(name, image, found)
            yield f"{name}-{version}-{image.architecture}.cdx.json", bill
    distributions = dict(_distributions(source, found.epoch))
    yield from distributions.items()
    (wheel,) = (name for name in distributions if name.endswith(".whl"))
    chart = source / "charts" / "inferencemodel-operator"
    packed = install.chart(chart, references, base, found.epoch)
    yield f"inferencemodel-operator-{version}.tgz", packed
    manifest = install.manifest(_kustomized(source), references)
    yield "install.yaml", manifest.encode()
    yield "inferencemodel-crd.yaml", (source / "crds" / "inferencemodel.yaml").read_bytes()
    plugin = f"kubectl-inferencemodel-{version}.tar.gz"
    packed = krew.archive(source, distributions[wheel], wheel, found.epoch)
    yield plugin, packed
    described = krew.manifest(version, options.repository, plugin, archives.digest(packed))
    yield "inferencemodel.yaml", described.encode()
    bundle = olm.bundle(
        manifest,
        references,
        repository=options.repository,
        epoch=found.epoch,
        example=(source / "examples" / "minimal.yaml").read_text(),
    )
    packed = archives.compressed(archives.tar(bundle, epoch=found.epoch))
    yield f"inferencemodel-operator-bundle-{version}.tar.gz", packed
    yield "notes.md", notes.notes(found.changelog, version, base).encode()


def _distributions(source: Path, epoch: int) -> Iterator[tuple[str, bytes]]:
    """The wheel and the source distribution."""
    with tempfile.TemporaryDirectory() as directory:
        _run(
            *(sys.executable, "-m", "hatchling", "build", "--directory", directory),
            cwd=source,
            environment={"SOURCE_DATE_EPOCH": str(epoch)},
        )
        for path in sorted(Path(directory).iterdir()):
            yield path.name, path.read_bytes()


def _kustomized(source: Path) -> str:
    try:
        kubectl = programs.ensure(["kubectl"])["kubectl"]
    except DevclusterError as error:
        raise ProgramError(str(error)) from error
    return _run(str(kubectl), "kustomize", str(source / "manifests" / "base"), cwd=source)


def _run(*argv: str, cwd: Path, environment: Mapping[str, str] | None = None) -> str:
    done = subprocess.run(
        argv,
        cwd=cwd,
        env={**os.environ, **(environment or {})},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise ProgramError(f"{' '.join(argv[:4])}: {done.stderr.strip()[-2000:]}")
    return done.stdout


def _empty(folder: Path) -> None:
    """Have an empty folder; only an earlier release is removed from it.

    Raises:
        ReleaseError: it holds something else.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()) and not (folder / SUMS).is_file():
        raise ReleaseError(f"{folder} holds something else than a release: name another OUTPUT")
    for path in folder.iterdir():
        path.unlink()
