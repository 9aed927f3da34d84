"""Google's own library for who asks: in the process that publishes, and in one for one token.

The program prints one JSON object, see `google.GoogleIdentity`: a token, or why there is none.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from datetime import UTC
from pathlib import Path
from typing import TYPE_CHECKING, Any

import google.auth
from google.auth.credentials import AnonymousCredentials
from google.auth.exceptions import DefaultCredentialsError, GoogleAuthError, RefreshError

from model_poller.errors import (
    AccessDeniedError,
    InvalidSettingsError,
    PollerError,
    UnreachableError,
)
from model_poller.stores.google import ANONYMOUS
from model_poller.stores.google_http import GoogleHttp

if TYPE_CHECKING:
    from collections.abc import Sequence

_LIFE_SECONDS = 3600.0
"""Of a token that doesn't tell; Google's live so long."""


def main(arguments: Sequence[str]) -> int:
    """Print a token for a scope, of a key file or of whom Google's own chain finds."""
    scope, *path = arguments
    answer: dict[str, Any]
    try:
        identity = LibraryIdentity(find_credentials(Path(path[0]) if path else None, scope))
        answer = identity.token()
    except InvalidSettingsError as error:
        answer = {"none": str(error)}
    except AccessDeniedError as error:
        answer = {"refused": str(error)}
    except UnreachableError as error:
        answer = {"unreachable": str(error)}
    sys.stdout.write(json.dumps(answer))
    return 0


class LibraryIdentity:
    """An `Identity` that has Google's library in this process."""

    def __init__(self, credentials: Any) -> None:
        """``credentials`` are some of Google's library."""
        self.credentials = credentials
        self._http = GoogleHttp(credentials)
        self._lock = threading.Lock()

    @property
    def principal(self) -> str:
        """See `Identity.principal`."""
        if isinstance(self.credentials, AnonymousCredentials):
            return ANONYMOUS
        return str(
            getattr(self.credentials, "service_account_email", None)
            or getattr(self.credentials, "account", None)
            or "the caller"
        )

    def prove(self) -> dict[str, str]:
        """See `Identity.prove`."""
        headers: dict[str, str] = {}
        try:
            with self._lock:
                self.credentials.before_request(self._http.refresh, "GET", "", headers)
        except GoogleAuthError as error:
            raise self._refused(error) from error
        return headers

    def forget(self) -> None:
        """See `Identity.forget`: the library does so by itself."""

    def token(self) -> dict[str, Any]:
        """A new token, until when it counts, and whose it is."""
        try:
            self.credentials.refresh(self._http.refresh)
        except GoogleAuthError as error:
            raise self._refused(error) from error
        expiry = self.credentials.expiry
        return {
            "token": self.credentials.token,
            "expires": expiry.replace(tzinfo=UTC).timestamp()
            if expiry
            else time.time() + _LIFE_SECONDS,
            "principal": self.principal,
        }

    def _refused(self, error: GoogleAuthError) -> PollerError:
        if isinstance(error, RefreshError) and not error.retryable:
            return AccessDeniedError(
                f"the credentials of {self.principal} are refused ({_first_line(error)}); renew"
                " the key or the identity"
            )
        return UnreachableError(f"no access token is to be had ({_first_line(error)})")


def find_credentials(key: Path | None, scope: str) -> Any:
    """Those in a key file, or what Google's own chain finds.

    Raises:
        InvalidSettingsError: there are none.
    """
    try:
        if key:
            return google.auth.load_credentials_from_file(str(key), scopes=[scope])[0]
        return google.auth.default(scopes=[scope])[0]
    except (DefaultCredentialsError, ValueError, OSError) as error:
        raise InvalidSettingsError(
            f"no Google credentials found ({_first_line(error)}); set"
            " GOOGLE_APPLICATION_CREDENTIALS to a key file, run with a service account that"
            " has an identity, or ask with --anonymous for a public bucket"
        ) from error


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:300]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
