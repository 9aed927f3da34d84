"""An exported SavedModel, judged by the poller's own rules and made ready to be stored."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING

from model_poller.archives.paths import Names
from model_poller.archives.unpacking import Limits
from model_poller.checks import integrity, manifest
from model_poller.errors import BrokenVersionError, IncompleteVersionError
from model_poller.status import VersionReason

if TYPE_CHECKING:
    from pathlib import Path

    from model_poller.checks.signature import SecretKey

_ENTRIES = Limits().entries


@dataclass(frozen=True, slots=True)
class Proof:
    """What a version is published with, beside its own files."""

    manifest: bool = True
    """A SHA256SUMS; one that the export brings is checked and kept."""
    key: SecretKey | None = None
    """Signs the SHA256SUMS."""
    marker: str | None = None
    """The name of the file that ends an upload."""
    model: str | None = None
    """Whose version a signature is for; None: the storage URI's folder tells."""


def stage(export: Path, into: Path, proof: Proof) -> None:
    """Show an export's files by links in a new folder, with a manifest and a marker of its own.

    The export itself is left as it is. The signature is `sign`'s.

    Raises:
        BrokenVersionError: there is something that no poller takes.
        IncompleteVersionError: a file is missing.
        OSError
    """
    names = Names(str(export))
    entries = 0
    for place, folders, files in os.walk(export):
        relative = os.path.relpath(place, export)
        prefix = "" if relative == "." else f"{relative}/"
        (into / prefix).mkdir()
        for name in (*folders, *files):
            entries += 1
            file = export / prefix / name
            mode = file.lstat().st_mode
            if stat.S_ISDIR(mode):
                continue
            if not stat.S_ISREG(mode):
                raise BrokenVersionError(
                    VersionReason.UNSAFE_ARCHIVE,
                    f"{file} is a link or a device, which no poller takes; put a plain file there",
                )
            names.add_file(prefix + name)
            (into / prefix / name).symlink_to(file.absolute())
    if entries > _ENTRIES:
        raise BrokenVersionError(
            VersionReason.ARCHIVE_TOO_LARGE,
            f"{export} has {entries} files and folders; pollers take {_ENTRIES}",
        )
    try:
        integrity.check_folder(into, may_grow=True)
    except IncompleteVersionError as error:
        fault = str(error).partition(";")[0]
        raise IncompleteVersionError(
            error.reason, f"{export}: {fault}; export the model anew"
        ) from error
    if proof.marker and not (into / proof.marker).exists():
        (into / proof.marker).touch()
    if (into / manifest.NAME).exists():
        _check(export, into, proof.marker)
    elif proof.manifest:
        manifest.write(into, marker=proof.marker)


def sign(staged: Path, key: SecretKey, version: int, model: str) -> None:
    """Sign a staged version's manifest for this version of this model.

    Raises:
        OSError
    """
    # It may be a link into the export.
    (staged / manifest.SIGNATURE_NAME).unlink(missing_ok=True)
    manifest.sign(staged, key, version, model)


def _check(export: Path, staged: Path, marker: str | None) -> None:
    try:
        manifest.check(
            staged,
            version=0,
            required=True,
            key=None,
            marker=marker,
            may_grow=False,
            stopped=lambda: False,
        )
    except BrokenVersionError as error:
        fault = str(error).partition(";")[0]
        raise BrokenVersionError(
            error.reason, f"{export}: {fault}; remove its {manifest.NAME}, or export it anew"
        ) from error
