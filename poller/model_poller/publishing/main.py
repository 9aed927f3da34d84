"""``model_publish``: check an exported model, store it as a new version, print its number."""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import sys
import tempfile
import threading
import time
from contextlib import closing, suppress
from dataclasses import asdict, replace
from enum import IntEnum
from pathlib import Path
from typing import TYPE_CHECKING

from model_poller.checks import marker
from model_poller.checks.signature import SecretKey
from model_poller.errors import (
    EXIT_USAGE,
    BrokenVersionError,
    IncompleteVersionError,
    InvalidSettingsError,
    PollerError,
    VersionExistsError,
)
from model_poller.process import leftovers, output
from model_poller.process.arguments import Parser, shown
from model_poller.publishing import export, packing
from model_poller.publishing.destination import open_destination
from model_poller.publishing.ending import EndedError, Signals
from model_poller.publishing.place import check_place
from model_poller.publishing.publish import FOLDER, Choice, Published, Publisher
from model_poller.retry import LISTING_SECONDS, Deadline
from model_poller.status import VersionReason
from model_poller.stores.options import add_options, source_settings
from model_poller.stores.uri import parse_uri
from model_poller.versions import parse_number
from model_poller.volume.store import FULL

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from model_poller.stores.opening import SourceSettings

_PROGRESS_SECONDS = 2.0
_SCRATCH = "model_publish-"
"""What the names of folders in TMPDIR begin with."""
_DESCRIPTION = """\
Checks an exported SavedModel, stores it as a new version, and prints the version's number.

  version=$(model_publish export/ gs://BUCKET/FOLDER)

The version is never seen half, and nothing that is stored is ever replaced. EXPORT_DIR is the
folder with saved_model.pb; it is left as it is. Credentials are found as the poller finds them.
"""
_CODES = """\
exit codes:
  0  published (or, with --dry-run, it could be)
  2  the command line, the credentials or TMPDIR can't be used
  3  the export is incomplete, or holds what no poller takes; nothing was sent
  4  the version is there already, and was left as it is
  5  the store refused, or did not answer; the message says which object is concerned; or TMPDIR
     has no room, or stdout can't be written
  128 and the number of a signal that said to end; nothing is left behind, but for a part of a
      folder in an object store, or what the signal came too late for: both are told
"""


class ExitCode(IntEnum):
    """How the command ends."""

    PUBLISHED = 0
    USAGE = EXIT_USAGE
    UNFIT = 3
    EXISTS = 4
    FAILED = 5


def main(arguments: Sequence[str] | None = None) -> int:
    """Publish one version; returns the exit code."""
    try:
        given = parser().parse_args(arguments)
    except InvalidSettingsError as error:
        # As for any command whose line can't be read.
        sys.exit(_failed(error, ExitCode.USAGE))
    # Else gRPC's and the store's libraries write lines of their own.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    try:
        with Signals(to_the_end=arguments is None) as signals:
            _publish(given, os.environ, signals)
    except InvalidSettingsError as error:
        return _failed(error, ExitCode.USAGE)
    except (BrokenVersionError, IncompleteVersionError) as error:
        return _failed(error, ExitCode.UNFIT)
    except VersionExistsError as error:
        return _failed(error, ExitCode.EXISTS)
    except (PollerError, OSError) as error:
        if isinstance(error, OSError) and error.errno in FULL:
            _say(f"{_temporary(os.environ)} has no room for the packed version; set TMPDIR")
        return _failed(error, ExitCode.FAILED)
    except EndedError as error:
        _say(str(error) if error.left else f"{error}; nothing was left behind")
        return error.exit_code
    return ExitCode.PUBLISHED


def _publish(given: argparse.Namespace, environment: Mapping[str, str], signals: Signals) -> None:
    folder = Path(given.export_dir)
    if not folder.is_dir():
        raise InvalidSettingsError(f"{shown(str(folder))} is no folder")
    location = parse_uri(given.uri)
    if given.format == FOLDER and location.scheme != "file" and not given.marker:
        raise InvalidSettingsError(
            "--format=folder needs --marker=NAME, and pollers the same as --complete-marker:"
            " objects are seen one by one, and the marker comes last"
        )
    if given.marker and given.format != FOLDER:
        raise InvalidSettingsError("--marker is for --format=folder; an archive is seen whole")
    if given.marker and (fault := marker.fault(given.marker)):
        raise InvalidSettingsError(f"--marker={shown(given.marker)} {fault}")
    if given.marker and (folder / given.marker).is_dir():
        raise InvalidSettingsError(
            f"--marker={shown(given.marker)} is a folder of the export; take another name"
        )
    if given.sign_key and given.no_manifest:
        raise InvalidSettingsError("--sign-key signs the manifest: leave out --no-manifest")
    try:
        key = SecretKey.load(Path(given.sign_key)) if given.sign_key else None
    except OSError as error:
        raise InvalidSettingsError(f"the secret key can't be read: {error}") from error
    if given.sign_model is not None and not given.sign_key:
        raise InvalidSettingsError("--sign-model says what --sign-key signs for: give both")
    proof = export.Proof(
        manifest=not given.no_manifest,
        key=key,
        marker=given.marker,
        model=given.sign_model,
        golden=None if given.golden is None else Path(given.golden),
    )
    store = source_settings(given, location, environment)
    temporary = _temporary(environment)
    leftovers.clear(temporary, re.compile(f"{re.escape(_SCRATCH)}.*"))
    try:
        made = Path(tempfile.mkdtemp(prefix=_SCRATCH, dir=temporary))
    except (FileNotFoundError, NotADirectoryError, PermissionError) as error:
        raise InvalidSettingsError(
            f"TMPDIR={shown(str(temporary))} can't be used ({error.strerror}); give a folder that"
            f" user {os.getuid()} can write to"
        ) from error
    try:
        try:
            with leftovers.held(made):
                done = _publish_from(folder, made, given, store, proof)
        finally:
            signals.ignore()
    finally:
        # Reached with the signals ignored, also where one came in the lines above.
        shutil.rmtree(made, ignore_errors=True)
    verb = "would be published" if given.dry_run else "published"
    _say(f"{verb}: {done.uri}, {done.bytes / 1e6:.1f} MB in {done.files} object(s)")
    is_json = given.output == "json"
    _print(json.dumps({**asdict(done), "dryRun": given.dry_run}) if is_json else str(done.version))


def _temporary(environment: Mapping[str, str]) -> Path:
    """Where versions are packed.

    Where TMPDIR can't be used, Python would take another folder, which may have no room.
    """
    return Path(environment.get("TMPDIR") or tempfile.gettempdir()).absolute()


def _print(text: str) -> None:
    """Write what a pipeline reads.

    Raises:
        PollerError: it can't be written.
    """
    try:
        output.write(sys.stdout, text)
    except OSError as error:
        raise PollerError(f"stdout can't be written ({error}); it would say {text}") from error


def _publish_from(
    folder: Path,
    scratch: Path,
    given: argparse.Namespace,
    store: SourceSettings,
    proof: export.Proof,
) -> Published:
    staged = scratch / "staged"
    _say(f"checking {folder}")
    try:
        export.stage(folder, staged, proof, say=_say)
    except PermissionError as error:
        told = str(error).replace(str(staged), str(folder))
        raise BrokenVersionError(
            VersionReason.FETCH_FAILED,
            f"{folder} can't be read whole ({told}); let user {os.getuid()} read it",
        ) from error
    with closing(open_destination(store)) as destination:
        with Deadline(LISTING_SECONDS, f"listing {destination.uri}"):
            check_place(
                destination, lambda other: open_destination(replace(store, locations=(other,)))
            )
        publisher = Publisher(
            destination,
            store.locations[0],
            given.format,
            proof,
            progress=_Progress().add,
            say=_say,
            exported=folder,
        )
        return publisher.publish(staged, scratch, given.version, dry_run=given.dry_run)


class _Progress:
    """Tells from time to time how much was sent."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._sent = 0
        self._begin = time.monotonic()
        self._told = self._begin

    def add(self, count: int) -> None:
        with self._lock:
            self._sent += count
            now = time.monotonic()
            if now - self._told < _PROGRESS_SECONDS:
                return
            self._told = now
            rate = self._sent / (now - self._begin)
        _say(f"{self._sent / 1e6:.1f} MB sent, {rate / 1e6:.1f} MB/s")


def _version(text: str) -> int | Choice:
    if text in (Choice.NEXT.value, Choice.TIMESTAMP.value):
        return Choice(text)
    number = parse_number(text)
    if number is None:
        raise argparse.ArgumentTypeError(f"{shown(text)} is no version: give a number below 2^63")
    return number


def parser() -> Parser:
    """The command line."""
    made = Parser("model_publish", description=_DESCRIPTION, epilog=_CODES)
    made.add_argument("export_dir", metavar="EXPORT_DIR", help="the folder with saved_model.pb")
    made.add_argument(
        "uri",
        metavar="URI",
        help="the folder with the versions: gs://BUCKET/FOLDER, s3://BUCKET/FOLDER,"
        " az://CONTAINER/FOLDER, file:///FOLDER",
    )
    version = made.add_argument_group("version")
    version.add_argument(
        "--version",
        type=_version,
        default=Choice.NEXT,
        metavar="N|next|timestamp",
        help="a number; next: one above the highest there (default); timestamp: seconds since 1970",
    )
    version.add_argument(
        "--format",
        choices=(*packing.FORMATS, FOLDER),
        default="zip",
        help="how it is stored (zip); the same files always give the same archive",
    )
    version.add_argument(
        "--marker",
        metavar="NAME",
        help="of --format=folder: this file is stored last; pollers take --complete-marker=NAME",
    )
    version.add_argument(
        "--sign-key",
        metavar="FILE",
        help="sign the manifest with this secret key of minisign (minisign -G -W)",
    )
    version.add_argument(
        "--sign-model",
        metavar="NAME",
        help="the model that the signature is for: the last folder of the URI that pollers are"
        " given, or their --model-name (the last folder of URI)",
    )
    version.add_argument(
        "--golden",
        metavar="FILE",
        help="requests with the answers that the version has to give; they are put into its"
        " warm-up file (kubectl inferencemodel record makes such files)",
    )
    version.add_argument(
        "--no-manifest", action="store_true", help="add no SHA256SUMS of the version's files"
    )
    add_options(made.add_argument_group("store"))
    own = made.add_argument_group("the command itself")
    own.add_argument("--dry-run", action="store_true", help="do all but the upload")
    own.add_argument(
        "-o",
        "--output",
        choices=("version", "json"),
        default="version",
        help="on stdout: the version's number (default), or an object with version, uri, bytes",
    )
    return made


def _failed(error: Exception, code: ExitCode) -> ExitCode:
    _say(" ".join(str(error).splitlines()))
    return code


def _say(text: str) -> None:
    # Whoever reads it no longer, or has no room for it, keeps no version from being published.
    with suppress(OSError):
        output.write(sys.stderr, f"model_publish: {text}")
