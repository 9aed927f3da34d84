"""Which certificates a server is believed by.

A proxy that looks into TLS, or a store of a company's own, has a certificate of its own authority.
EXTRA_CA_FILE names a file with such authorities; they count beside those that count anyway, for
every https store, the tokens that they ask for, and Pub/Sub. A mounted ConfigMap is replaced while
the poller runs, so the file is looked at for each new connection.
"""

from __future__ import annotations

import logging
import os
import ssl
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import certifi

from model_poller.errors import InvalidSettingsError

BUNDLE: Final = "REQUESTS_CA_BUNDLE"
"""Replaces the authorities that count anyway; requests' own variable."""
EXTRA: Final = "EXTRA_CA_FILE"
LARGEST_BYTES: Final = 4 << 20
"""Four times what a ConfigMap can hold; all authorities of the web have 0.3 MB."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Files:
    """What a context was made of: another one is made for other files."""

    bundle: str | None
    extra: str | None
    seen: tuple[int, ...] | None
    """Which file ``extra`` was."""


@dataclass(frozen=True, slots=True)
class _Believed:
    """The authorities of such files."""

    context: ssl.SSLContext
    extra: bytes
    """What ``extra`` held, for whom a context is of no use."""


class _Trust:
    """What was believed last, for all who ask."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: tuple[_Files, _Believed] | None = None

    def believed(self) -> _Believed:
        with self._lock:
            files = _files()
            if self._kept and self._kept[0] == files:
                return self._kept[1]
            try:
                made = _make(files)
            except InvalidSettingsError as error:
                before = self._kept
                if before is None or _names(before[0]) != _names(files):
                    raise
                # It may be written at this moment, and the one before was good.
                _log.warning("%s; what it held before counts", error)
                made = before[1]
            else:
                if self._kept and _names(self._kept[0]) == _names(files):
                    _log.info("%s was replaced and is read anew", files.extra)
            self._kept = files, made
            return made


_trust = _Trust()


def context() -> ssl.SSLContext:
    """What a connection is opened with.

    Raises:
        InvalidSettingsError: a file that the environment names holds no certificates.
    """
    return _trust.believed().context


def check() -> None:
    """Judge the files that the environment names.

    Raises:
        InvalidSettingsError
    """
    if os.environ.get(BUNDLE) or os.environ.get(EXTRA):
        _make(_files())


def roots() -> bytes | None:
    """All authorities for gRPC, which has some of its own; None where those are enough.

    Raises:
        InvalidSettingsError: a file that the environment names holds no certificates.
    """
    files = _files()
    if files.extra is None:
        return None
    extra = _trust.believed().extra
    return b"\n".join((Path(files.bundle or certifi.where()).read_bytes(), extra))


def _files() -> _Files:
    extra = os.environ.get(EXTRA) or None
    seen = None
    if extra:
        try:
            told = Path(extra).stat()
            seen = (told.st_dev, told.st_ino, told.st_mtime_ns, told.st_size)
        except OSError:
            seen = None
    return _Files(os.environ.get(BUNDLE) or None, extra, seen)


def _names(files: _Files) -> tuple[str | None, str | None]:
    return files.bundle, files.extra


def _make(files: _Files) -> _Believed:
    try:
        made = ssl.create_default_context(cafile=files.bundle or certifi.where())
    except OSError as error:
        raise InvalidSettingsError(
            f"{BUNDLE}={files.bundle} is no file of certificates: {error.strerror or error}"
        ) from None
    return _Believed(made, _add(made, files.extra) if files.extra else b"")


def _add(made: ssl.SSLContext, extra: str) -> bytes:
    """Believe these as well; what the file holds."""
    try:
        if Path(extra).stat().st_size > LARGEST_BYTES:
            raise InvalidSettingsError(
                f"{EXTRA}={extra} has more than {LARGEST_BYTES >> 20} MiB; {_FIX}"
            )
        made.load_verify_locations(cafile=extra)
        text = Path(extra).read_bytes()
    except OSError as error:
        raise InvalidSettingsError(
            f"{EXTRA}={extra} is no file of certificates: {error.strerror or error}; {_FIX}"
        ) from None
    # Newer Pythons ask of an authority what many a company's own doesn't have, and no other
    # client asks for (https://docs.python.org/3/library/ssl.html#ssl.VERIFY_X509_STRICT).
    made.verify_flags &= ~ssl.VERIFY_X509_STRICT
    return text


_FIX: Final = (
    "put certificates of authorities into it, in PEM (in a pod of the operator: into the ConfigMap "
    "of spec.poller.extraCAs)"
)
