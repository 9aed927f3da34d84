"""``SHA256SUMS``: what a version's files have to be, in the format of coreutils' sha256sum.

It lies in the version's folder and lists every file there but itself, its signature
``SHA256SUMS.minisig`` and the marker that ends an upload.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote

from model_poller.archives.paths import is_noise
from model_poller.checks.signature import (
    MAX_BYTES,
    PublicKey,
    SecretKey,
    SignatureError,
    trusted_comment,
)
from model_poller.errors import BrokenVersionError, IncompleteVersionError, StoppedError
from model_poller.status import VersionReason

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping
    from pathlib import Path

NAME = "SHA256SUMS"
SIGNATURE_NAME = "SHA256SUMS.minisig"
_MAX_MANIFEST_BYTES = 32 << 20
_READ_BYTES = 1 << 20
_MAX_THREADS = 4
_LINE = re.compile(r"(\\?)([0-9a-fA-F]{64}) [ *](.+)", re.DOTALL)
_ESCAPES = {"\\\\": "\\", "\\n": "\n", "\\r": "\r"}
_VERSION = re.compile(r"(?:^|\t)version:([0-9]+)(?=\t|$)")
_MODEL = re.compile(r"(?:^|\t)model:([^\t]+)(?=\t|$)")


def check(
    folder: Path,
    *,
    version: int,
    required: bool,
    key: PublicKey | None,
    marker: str | None,
    may_grow: bool,
    stopped: Callable[[], bool],
    models: Collection[str] = (),
) -> bool:
    """Compare a version's files with its manifest; whether there is one.

    Without ``key`` a signature is not looked at. A signature whose trusted comment tells a version
    or a model is good for that version only, and for a model of one of the names in ``models``.
    What is missing may still be uploaded where ``may_grow``.

    Raises:
        BrokenVersionError: a file is another than the manifest says, or not in it; or the
            signature does not fit.
        IncompleteVersionError: ``may_grow``, and something is missing.
        StoppedError, OSError
    """
    missing = IncompleteVersionError if may_grow else BrokenVersionError
    content = _read(folder / NAME, _MAX_MANIFEST_BYTES)
    if content is None:
        if required or key:
            raise missing(
                VersionReason.MISSING_MANIFEST,
                f"{NAME} is missing and required; upload it with the version",
            )
        return False
    if key:
        signature = _read(folder / SIGNATURE_NAME, MAX_BYTES)
        if signature is None:
            raise missing(
                VersionReason.MISSING_MANIFEST,
                f"{SIGNATURE_NAME} is missing and required; sign {NAME} and upload it",
            )
        _check_signature(key, content, signature, version, models)
    try:
        listed = parse(content)
    except ValueError as error:
        raise missing(
            VersionReason.MANIFEST_MISMATCH,
            f"{NAME} can't be read ({error}); write it with sha256sum",
        ) from error
    names = _files(folder)
    # The unpacking leaves out what macOS adds, which whoever lists files by hand lists too.
    if lost := {name for name in listed.keys() - names if not is_noise(name)}:
        raise missing(
            VersionReason.MANIFEST_MISMATCH,
            f"{_some(lost)} missing, and {NAME} lists it; upload it, or remove the version",
        )
    spare = {NAME, SIGNATURE_NAME, marker}
    if extra := names - listed.keys() - spare:
        raise BrokenVersionError(
            VersionReason.MANIFEST_MISMATCH,
            f"{_some(extra)} not in {NAME}; list every file, or remove it",
        )
    found = digests(folder, listed.keys() & names, stopped)
    if changed := {name for name, digest in found.items() if listed[name] != digest}:
        raise BrokenVersionError(
            VersionReason.MANIFEST_MISMATCH,
            f"{_some(changed)} not what {NAME} says; upload the version anew",
        )
    return True


def parse(content: bytes) -> dict[str, str]:
    """Digests in lower-case hexadecimal by file name.

    Takes what ``sha256sum --check`` takes of its own format: text and binary mode, escaped names,
    comments; and ``./`` before a name.

    Raises:
        ValueError: which line is wrong, and how.
    """
    listed: dict[str, str] = {}
    for number, line in enumerate(content.split(b"\n"), 1):
        text = line.removesuffix(b"\r").decode(errors="surrogateescape")
        if text.startswith("#") or (not text and number == content.count(b"\n") + 1):
            continue
        match = _LINE.fullmatch(text)
        if not match:
            raise ValueError(f"line {number} is not a digest and a name")
        name = match[3]
        if match[1]:
            name = re.sub(r"\\(?:\\|n|r)", lambda m: _ESCAPES[m[0]], name)
        name = name.removeprefix("./")
        if name in listed:
            raise ValueError(f"line {number} lists {name[:200]!r} again")
        listed[name] = match[2].lower()
    if not listed:
        raise ValueError("it lists nothing")
    return listed


def write(folder: Path, *, marker: str | None = None) -> Path:
    """Write the manifest of a version's folder; returns its path.

    Raises:
        BrokenVersionError: the folder holds a link or a device.
        OSError
    """
    names = _files(folder) - {NAME, SIGNATURE_NAME, marker}
    path = folder / NAME
    path.write_bytes(render(digests(folder, names, lambda: False)))
    return path


def render(listed: Mapping[str, str]) -> bytes:
    """The manifest of files with these digests, by name in hexadecimal."""
    lines = []
    for name, digest in sorted(listed.items()):
        escaped = name.replace("\\", "\\\\").replace("\n", "\\n").replace("\r", "\\r")
        lines.append(("\\" if escaped != name else "") + f"{digest}  {escaped}\n")
    return "".join(lines).encode(errors="surrogateescape")


def sign(folder: Path, key: SecretKey, version: int, model: str | None = None) -> Path:
    """Sign a folder's manifest for this version of this model; returns the signature's path.

    Raises:
        OSError
    """
    path = folder / SIGNATURE_NAME
    path.write_bytes(signature((folder / NAME).read_bytes(), key, version, model))
    return path


def signature(content: bytes, key: SecretKey, version: int, model: str | None) -> bytes:
    """The signature file over a manifest, for this version of this model."""
    # A comment is one line, and a tab ends a word of it.
    whose = "model:" + quote(model, safe="") + "\t" if model else ""
    moment = int(time.time())
    comment = f"timestamp:{moment}\tfile:{NAME}\t{whose}version:{version}\thashed"
    return key.sign(content, comment)


def digests(folder: Path, names: Iterable[str], stopped: Callable[[], bool]) -> dict[str, str]:
    """The SHA-256 of each file in hexadecimal; several are read at once.

    Raises:
        BrokenVersionError: it is not a plain file.
        StoppedError, OSError
    """
    ordered = list(names)

    def digest(name: str) -> str:
        return _digest(folder / name, name, stopped)

    threads = min(_MAX_THREADS, len(os.sched_getaffinity(0)))
    with ThreadPoolExecutor(threads, thread_name_prefix="sha256") as pool:
        return dict(zip(ordered, pool.map(digest, ordered), strict=True))


def _digest(path: Path, name: str, stopped: Callable[[], bool]) -> str:
    # Opening a named pipe would wait for its writer.
    if not stat.S_ISREG(path.stat().st_mode):
        raise BrokenVersionError(
            VersionReason.MANIFEST_MISMATCH, f"{name[:200]!r} is not a plain file; remove it"
        )
    digest = hashlib.sha256()
    buffer = memoryview(bytearray(_READ_BYTES))
    with path.open("rb", buffering=0) as file:
        while count := file.readinto(buffer):
            if stopped():
                raise StoppedError("checking the manifest was given up")
            digest.update(buffer[:count])
    return digest.hexdigest()


def _check_signature(
    key: PublicKey, content: bytes, signature: bytes, version: int, models: Collection[str]
) -> None:
    try:
        comment = key.verify(content, signature)
    except SignatureError as error:
        raise BrokenVersionError(
            VersionReason.SIGNATURE_MISMATCH,
            f"{SIGNATURE_NAME} is refused: {error}; sign {NAME} anew, with the key that belongs to"
            " the configured one",
        ) from error
    check_comment(comment, version, models)


def told_by_signature(folder: Path) -> str | None:
    """The trusted comment of a folder's signature, not verified; None without one.

    Raises:
        BrokenVersionError: it is no signature.
        OSError
    """
    signature = _read(folder / SIGNATURE_NAME, MAX_BYTES)
    try:
        return trusted_comment(signature) if signature is not None else None
    except SignatureError as error:
        raise BrokenVersionError(
            VersionReason.SIGNATURE_MISMATCH,
            f"{SIGNATURE_NAME} is refused: {error}; sign {NAME} anew",
        ) from error


def check_comment(comment: str, version: int, models: Collection[str]) -> None:
    """See whether a signature is for this version of this model, as far as its comment tells.

    Else whoever can write to the bucket brings an old version back under a new number, or the
    version of one model as that of another.

    Raises:
        BrokenVersionError
    """
    told = _VERSION.search(comment)
    if told and told[1].lstrip("0") != str(version).lstrip("0"):
        raise BrokenVersionError(
            VersionReason.SIGNATURE_MISMATCH,
            f"{SIGNATURE_NAME} was made for version {told[1][:20]}, not for {version}; sign it for"
            " this one",
        )
    whose = _MODEL.search(comment)
    if whose and not {whose[1], unquote(whose[1])} & set(models):
        ours = " or ".join(sorted(filter(None, models))) or "this one"
        raise BrokenVersionError(
            VersionReason.SIGNATURE_MISMATCH,
            f"{SIGNATURE_NAME} was made for the model {whose[1][:200]}, not for {ours}; sign it for"
            " this one",
        )


def _files(folder: Path) -> set[str]:
    """The names of all files below a folder; a link to a folder counts as a file."""
    names: set[str] = set()
    for place, folders, files in os.walk(folder):
        relative = os.path.relpath(place, folder)
        links = [name for name in folders if os.path.islink(f"{place}/{name}")]  # noqa: PTH114
        prefix = "" if relative == "." else f"{relative}/"
        names.update(prefix + name for name in [*files, *links])
    return names


def _read(path: Path, most: int) -> bytes | None:
    if not path.is_file():
        return None
    with path.open("rb") as file:
        content = file.read(most + 1)
    if len(content) > most:
        raise BrokenVersionError(
            VersionReason.MANIFEST_MISMATCH, f"{path.name} is larger than {most} bytes"
        )
    return content


def _some(names: Iterable[str]) -> str:
    ordered = sorted(names)
    shown = ", ".join(ascii(name[:200]) for name in ordered[:3])
    more = f" and {len(ordered) - 3} more" if len(ordered) > 3 else ""
    return f"{shown}{more} {'is' if len(ordered) == 1 else 'are'}"
