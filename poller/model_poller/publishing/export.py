"""An exported SavedModel, judged by the poller's rules before it is packed and as it is sent."""

from __future__ import annotations

import os
import shutil
import stat
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from model_poller.archives import archive
from model_poller.archives.paths import Names, is_noise
from model_poller.archives.unpacking import Limits
from model_poller.checks import integrity, interface, manifest, version_files
from model_poller.errors import (
    BrokenVersionError,
    IncompleteVersionError,
    InvalidSettingsError,
)
from model_poller.model_server import records
from model_poller.process.arguments import shown
from model_poller.publishing import golden, graph
from model_poller.status import VersionReason

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
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
    golden: Path | None = None
    """Requests with their answers, which the version has to give as well."""


@dataclass(frozen=True, slots=True)
class Identity:
    """As which version of which model an export is published, and from where."""

    export: Path
    version: int
    model: str


def stage(
    export: Path, into: Path, proof: Proof, say: Callable[[str], None] = lambda _: None
) -> None:
    """Show an export's files by links in a new folder, with a marker of its own.

    The export itself is left as it is. Left out is what pollers leave out of archives, and a
    signature where a new one is made.

    Raises:
        BrokenVersionError: there is something that no poller takes.
        IncompleteVersionError: a file is missing.
        InvalidSettingsError: the marker can't lie beside these files, or the golden records
            can't be used.
        OSError
    """
    names = Names(str(export))
    _link(export, into, names, say, is_signed=bool(proof.key))
    _check_graph(export, into, say)
    _check_warmup(export, into)
    if proof.golden is not None:
        _add_golden(export, into, proof.golden, names, say)
    if told := _left_cold(into):
        say(f"{export}: {told}")
    if (into / manifest.SIGNATURE_NAME).exists() and not (into / manifest.NAME).exists():
        raise BrokenVersionError(
            VersionReason.SIGNATURE_MISMATCH,
            f"{export}: {manifest.SIGNATURE_NAME} is there without the {manifest.NAME} that it"
            " signs; remove it, or put both there",
        )
    if proof.marker and not (into / proof.marker).is_file():
        try:
            names.add_file(proof.marker)
        except BrokenVersionError as error:
            raise InvalidSettingsError(
                f"--marker={proof.marker} can't be a file of {export}; choose another name"
            ) from error
        (into / proof.marker).touch()


def _link(
    export: Path, into: Path, names: Names, say: Callable[[str], None], *, is_signed: bool
) -> None:
    """Make a link to each file; ``is_signed``: a signature is made anew."""
    entries, noise = 0, 0
    for place, folders, files in os.walk(export, onerror=_raise):
        relative = os.path.relpath(place, export)
        prefix = "" if relative == "." else f"{relative}/"
        (into / prefix).mkdir()
        folders[:] = [name for name in folders if not is_noise(f"{prefix}{name}/")]
        for name in (*folders, *files):
            file = export / prefix / name
            mode = file.lstat().st_mode
            if stat.S_ISDIR(mode):
                entries += 1
                continue
            if is_noise(prefix + name):
                noise += 1
                continue
            entries += 1
            if not stat.S_ISREG(mode):
                raise BrokenVersionError(
                    VersionReason.UNSAFE_ARCHIVE,
                    f"{file} is a link or a device, which no poller takes; put a plain file there",
                )
            names.add_file(prefix + name)
            if not (is_signed and prefix + name == manifest.SIGNATURE_NAME):
                (into / prefix / name).symlink_to(file.absolute())
    if noise:
        say(f"left out {noise} file(s) that macOS adds (.DS_Store, ._*)")
    if entries > _ENTRIES:
        raise BrokenVersionError(
            VersionReason.ARCHIVE_TOO_LARGE,
            f"{export} has {entries} files and folders; pollers take {_ENTRIES}",
        )


def _check_graph(export: Path, into: Path, say: Callable[[str], None]) -> None:
    """See whether a model server finds a graph, and all that belongs to it."""
    if not _has_graph(into):
        held = ", ".join(sorted(path.name[:50] for path in into.iterdir())[:5]) or "nothing"
        raise IncompleteVersionError(
            VersionReason.MISSING_SAVED_MODEL,
            f"{export} holds {held}: saved_model.pb is missing; {_nearby(export)}",
        )
    with _advice(export):
        integrity.check_folder(into)
    try:
        if told := graph.check(into):
            say(f"{export}: {told}")
    except BrokenVersionError as error:
        raise BrokenVersionError(error.reason, f"{export}: {error}") from error


def _add_golden(
    export: Path, into: Path, given: Path, names: Names, say: Callable[[str], None]
) -> None:
    """Put golden records beside the files."""
    if (into / manifest.NAME).exists():
        raise InvalidSettingsError(
            f"{export} has a {manifest.NAME}, which says what its files are: remove it to have"
            " --golden add records to them"
        )
    if not (into / records.FOLDER / records.FILE).exists():
        names.add_file(f"{records.FOLDER}/{records.FILE}")
    say(golden.put(given, into))


def seal(
    staged: Path, proof: Proof, identity: Identity, packed: Mapping[str, str]
) -> dict[str, bytes]:
    """What proves the files of a staged version: a manifest and its signature, as is asked for.

    ``packed`` are the digests of the files as they were packed.

    Raises:
        OSError
    """
    made = {}
    if manifest.NAME in packed:
        content = (staged / manifest.NAME).read_bytes()
    elif proof.manifest:
        listed = {name: told for name, told in packed.items() if name != proof.marker}
        listed.pop(manifest.SIGNATURE_NAME, None)
        content = made[manifest.NAME] = manifest.render(listed)
    else:
        return {}
    if proof.key:
        made[manifest.SIGNATURE_NAME] = manifest.signature(
            content, proof.key, identity.version, identity.model
        )
    return made


def judge(packed: Path, origin: str, proof: Proof, identity: Identity, scratch: Path) -> None:
    """Do with what will be sent as a poller does: unpack it, and check what comes out.

    ``packed`` is an archive, or a folder; ``origin`` where it will be stored, ``scratch`` a folder
    with room for the unpacked files.

    Raises:
        BrokenVersionError, IncompleteVersionError: a poller would refuse it.
        OSError
    """
    tree = scratch / "unpacked"
    claim = version_files.Claim(
        identity.version,
        {identity.model},
        manifest=proof.manifest,
        public_key=proof.key.public if proof.key else None,
        marker=proof.marker,
    )
    try:
        model = packed
        if packed.is_file():
            with packed.open("rb") as bundle:
                archive.unpack(
                    bundle,
                    packed.stat().st_size,
                    tree,
                    origin=origin,
                    room=lambda _: None,
                    stopped=lambda: False,
                    limits=Limits(),
                )
            model = archive.find_model(tree, identity.version, origin)
        with _advice(identity.export):
            version_files.check(model, claim, may_grow=True, stopped=lambda: False)
            _check_own_signature(model, proof, identity)
    finally:
        shutil.rmtree(tree, ignore_errors=True)


def _raise(error: OSError) -> None:
    raise error


def _check_own_signature(model: Path, proof: Proof, identity: Identity) -> None:
    """Judge a signature that the export brings, as far as can be without its public key.

    Raises:
        BrokenVersionError
    """
    if not proof.key and (comment := manifest.told_by_signature(model)) is not None:
        manifest.check_comment(comment, identity.version, {identity.model})


def _check_warmup(export: Path, staged: Path) -> None:
    own = staged / records.FOLDER / records.FILE
    if not own.is_file():
        return
    try:
        records.check(own)
    except ValueError as error:
        raise BrokenVersionError(
            VersionReason.LOAD_FAILED,
            f"{export}/{records.FOLDER}/{records.FILE}: {error}; a model server fails to load a"
            " version with it: write PredictionLogs with tf.io.TFRecordWriter, or remove it",
        ) from error


def _left_cold(staged: Path) -> str:
    """By which signatures the version is not warmed up; empty where it is by all, or by none."""
    own = staged / records.FOLDER / records.FILE
    if not own.is_file():
        return ""
    try:
        left = sorted(interface.read(staged).signatures.keys() - records.signatures(own))
    except ValueError:
        # Of a kind of request that only a newer model server knows, say.
        return ""
    if not left:
        return ""
    names = ", ".join(shown(name) for name in left[:5]) + (", …" if len(left) > 5 else "")
    return (
        f"no warm-up request asks by the signature {names}: TensorFlow prepares it at its first"
        " request, and all who ask by it meanwhile wait"
    )


def _nearby(export: Path) -> str:
    """Where the SavedModel is, if the folder above it or one in it was given; else what to do."""
    inside = sorted(path.name for path in export.iterdir() if path.is_dir() and _has_graph(path))
    if inside:
        # The highest of several numbers is the last export.
        inside.sort(key=lambda name: (name.isdecimal(), len(name), name))
        return f"it is the folder of {', '.join(inside[-3:])}: give {export / inside[-1]} instead"
    if _has_graph(export.absolute().parent):
        return f"it is a part of an export: give {export.absolute().parent} instead"
    return "export the model anew"


def _has_graph(folder: Path) -> bool:
    return any((folder / name).is_file() for name in integrity.GRAPH_FILES)


@contextmanager
def _advice(export: Path) -> Iterator[None]:
    """Keep an error's fault, and say what to do about it before it is stored anywhere."""
    try:
        yield
    except (BrokenVersionError, IncompleteVersionError) as error:
        fault, advice = str(error).partition(";")[0], "export the model anew"
        if error.reason in (VersionReason.MANIFEST_MISMATCH, VersionReason.SIGNATURE_MISMATCH):
            advice = f"remove its {manifest.NAME}, or export it anew"
        raise type(error)(error.reason, f"{export}: {fault}; {advice}") from error
