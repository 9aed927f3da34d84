"""A key file of Google's that may be replaced while it is used, as a mounted Secret is."""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING, Any

import google.auth
from google.auth.credentials import Credentials
from google.auth.exceptions import GoogleAuthError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_log = logging.getLogger(__name__)


class KeyFile(Credentials):  # type: ignore[misc]
    """The credentials in a file, read anew before the request that comes after a change of it."""

    def __init__(self, path: Path, scope: str) -> None:
        """Read it.

        Raises:
            GoogleAuthError, ValueError: it holds no credentials.
            OSError
        """
        super().__init__()
        self._path = path
        self._scope = scope
        self._lock = threading.Lock()
        self._seen = self._identity()
        self._inner = self._read()

    @property
    def service_account_email(self) -> str | None:
        """Whose key it is; None where it tells none."""
        email: str | None = getattr(self._inner, "service_account_email", None)
        return email

    @property
    def universe_domain(self) -> str:
        """Whose cloud it is for, as Google's library asks for it."""
        domain: str = self._inner.universe_domain
        return domain

    def refresh(self, request: Any) -> None:
        """Get a new token, as Google's library does after one was refused."""
        self._current().refresh(request)

    def before_request(
        self, request: Any, method: str, url: str, headers: Mapping[str, str]
    ) -> None:
        """Put the token that counts now into the headers of a request."""
        self._current().before_request(request, method, url, headers)

    def _current(self) -> Any:
        with self._lock:
            try:
                now = self._identity()
                if now != self._seen:
                    self._seen = now
                    self._inner = self._read()
                    _log.info("%s was replaced and is read anew", self._path)
            except (OSError, GoogleAuthError, ValueError) as error:
                # It may be written at this moment; the old key may still count.
                _log.warning("%s can't be read (%s); the key before counts", self._path, error)
            return self._inner

    def _read(self) -> Any:
        return google.auth.load_credentials_from_file(str(self._path), scopes=[self._scope])[0]

    def _identity(self) -> tuple[int, int, int]:
        told = self._path.stat()
        return told.st_ino, told.st_mtime_ns, told.st_size
