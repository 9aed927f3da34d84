"""Who asks Google, and the token that proves it.

Google's own library finds it out: a key file, Workload Identity, another cloud's identity, the
machine's. With requests and cryptography it takes 20 MB of memory for one answer an hour. So it is
asked in a process that ends with its answer, `google_token`.
"""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import threading
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

from model_poller.errors import AccessDeniedError, InvalidSettingsError, UnreachableError
from model_poller.stores.renewal import Renewed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from model_poller.stores.credentials import Credentials

ANONYMOUS: Final = "an anonymous caller"
_IN_A_POD: Final = "KUBERNETES_SERVICE_HOST"
"""The variable that every container of a pod has."""
_LIMIT_SECONDS: Final = 90.0
"""For a token: its process asks with time limits of its own, and tries again."""
_RENEW_SECONDS: Final = 225.0
"""Before it expires; a machine hands out no other token before 4 minutes are left."""
_PAUSE_SECONDS: Final = 30.0
"""Between two questions to who hands out the same one again: each takes a process."""
_PROGRAM: Final = (sys.executable, "-W", "ignore", "-m", "model_poller.stores.google_token")

_log = logging.getLogger(__name__)


class Identity(Protocol):
    """Who asks Google."""

    @property
    def principal(self) -> str:
        """As far as it is known."""

    def prove(self) -> dict[str, str]:
        """The headers of a request that prove it.

        Raises:
            AccessDeniedError: the proof is refused.
            UnreachableError: who hands it out does not answer.
        """

    def forget(self) -> None:
        """Get a new proof for the next request: the present one was refused."""


@dataclass(frozen=True, slots=True)
class Token:
    """What `google_token` answers."""

    value: str = field(repr=False)
    expires: float
    """Unix time."""
    principal: str


class Anonymous:
    """Nobody."""

    principal = ANONYMOUS

    def prove(self) -> dict[str, str]:
        """See `Identity.prove`: nothing."""
        return {}

    def forget(self) -> None:
        """See `Identity.forget`."""


class GoogleIdentity:
    """Has tokens made, and renews them before they expire, and when the key file is replaced."""

    def __init__(
        self, credentials: Credentials, scope: str, program: Sequence[str] = _PROGRAM
    ) -> None:
        """``program`` answers as `google_token` does."""
        self._credentials = credentials
        self._scope = scope
        self._program = program
        self._lock = threading.Lock()
        self._tokens = Renewed(self._find, _RENEW_SECONDS, _PAUSE_SECONDS)
        self._seen = self._key()
        self._last: Token | None = None

    @property
    def principal(self) -> str:
        """See `Identity.principal`."""
        return self._last.principal if self._last else "the caller"

    def begin(self) -> None:
        """Get the first token, where it can be had now.

        Raises:
            InvalidSettingsError: there are no credentials, and none that could come.
        """
        try:
            with suppress(AccessDeniedError, UnreachableError):
                self._tokens.get()
        except InvalidSettingsError:
            # A pod's own identity may be later than the pod: behind a mesh's proxy that starts, or
            # a metadata server that hasn't heard of the pod. An end would only delay it further.
            if key_file(self._credentials) or not self._credentials.get(_IN_A_POD):
                raise

    def prove(self) -> dict[str, str]:
        """See `Identity.prove`."""
        with self._lock:
            if (key := self._key()) != self._seen:
                self._replaced(key)
            try:
                token = self._tokens.get()
            except InvalidSettingsError as error:
                # They were there when the process began.
                raise AccessDeniedError(str(error)) from None
            return {"Authorization": f"Bearer {token.value}"}

    def forget(self) -> None:
        """See `Identity.forget`."""
        self._tokens.forget()

    def _replaced(self, key: tuple[object, ...]) -> None:
        self._seen, before = key, self._tokens.kept
        self._tokens.forget()
        try:
            self._tokens.get()
        except (AccessDeniedError, InvalidSettingsError, UnreachableError) as error:
            # It may be written at this moment; the old key may still count.
            _log.warning("%s can't be used (%s); the key before counts", key[0], error)
            self._tokens.kept = before
        else:
            _log.info("%s was replaced and is read anew", key[0])

    def _key(self) -> tuple[object, ...]:
        path = key_file(self._credentials)
        try:
            told = path.stat() if path else None
        except OSError:
            told = None
        return (path, told and (told.st_ino, told.st_mtime_ns, told.st_size))

    def _find(self) -> Token:
        path = key_file(self._credentials)
        argv = [*self._program, self._scope, *([str(path)] if path else [])]
        try:
            done = subprocess.run(
                argv,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=_LIMIT_SECONDS,
                check=False,
                env={**os.environ, **_same_modules()},
            )
            told = json.loads(done.stdout or b"null")
        except (OSError, ValueError, subprocess.TimeoutExpired) as error:
            # From None: what was answered may hold a token.
            kind = type(error).__name__
            raise UnreachableError(f"no access token could be made ({kind})") from None
        match told:
            case {"token": str(value), "expires": float(expires), "principal": str(principal)}:
                self._last = Token(value, expires, principal)
                return self._last
            case {"none": str(message)}:
                raise InvalidSettingsError(message)
            case {"refused": str(message)}:
                raise AccessDeniedError(message)
            case {"unreachable": str(message)}:
                raise UnreachableError(message)
        # Its last line says what went wrong, and can't hold a token, which is never in a message.
        last = (done.stderr.decode(errors="replace").splitlines() or [""])[-1][:300]
        raise UnreachableError(
            f"no access token could be made (exit code {done.returncode}: {last})"
        )


def key_file(credentials: Credentials) -> Path | None:
    """The key file that the given credentials name."""
    if key := credentials.file("key.json"):
        return key
    told = credentials.get("GOOGLE_APPLICATION_CREDENTIALS")
    return Path(told) if told else None


def _same_modules() -> dict[str, str]:
    """Where the new process finds what this one runs, however it was started."""
    root, known = str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH")
    return {"PYTHONPATH": os.pathsep.join(filter(None, (root, known)))}
