"""Where the newest status hangs, for everybody who waits for the next one."""

from __future__ import annotations

import secrets
import threading
import time
from typing import TYPE_CHECKING

import msgspec

from model_poller.status import VersionState

if TYPE_CHECKING:
    from model_poller.status import PollerStatus


class Board:
    """Holds one status and wakes those who wait for a change; safe for many threads."""

    def __init__(self, first: PollerStatus) -> None:
        self._instance = secrets.token_hex(4)
        self._number = 0
        self._changed = threading.Condition()
        self._status = self._stamp(first)
        self._closed = False

    def post(self, status: PollerStatus) -> bool:
        """Hang up a status; whether it is another one, apart from what `_lasting` leaves out."""
        with self._changed:
            old = self._status
            if _lasting(status) == _lasting(old):
                self._status = msgspec.structs.replace(status, revision=old.revision)
                return False
            self._number += 1
            self._status = self._stamp(status)
            self._changed.notify_all()
            return True

    def read(self, after: str | None = None, timeout: float = 0.0) -> PollerStatus:
        """The status, at once if its revision is not ``after``, else when it changes.

        Answers the unchanged status after ``timeout`` seconds.
        """
        deadline = time.monotonic() + timeout
        with self._changed:
            while after == self._status.revision and not self._closed:
                left = deadline - time.monotonic()
                if left <= 0 or not self._changed.wait(left):
                    break
            return self._status

    def close(self) -> None:
        """Answer everybody who waits."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _stamp(self, status: PollerStatus) -> PollerStatus:
        return msgspec.structs.replace(status, revision=f"{self._instance}-{self._number}")


def _lasting(status: PollerStatus) -> PollerStatus:
    """What is news when it changes: not the room on the disk, not how far or long something is."""
    live = status.live and msgspec.structs.replace(status.live, window_seconds=0.0)
    versions = tuple(
        msgspec.structs.replace(version, bytes_done=0, seconds_left=None)
        if version.state is VersionState.FETCHING
        else version
        for version in status.versions
    )
    return msgspec.structs.replace(status, revision="", disk=None, live=live, versions=versions)
