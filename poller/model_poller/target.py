"""The version that this pod was told to serve."""

from __future__ import annotations

import logging
import threading
import time
from typing import TYPE_CHECKING

from model_poller.notices import FolderNotices
from model_poller.versions import parse_number

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

RELOOK_SECONDS = 5.0
LOOK_SECONDS = 0.1
"""Where the kernel has no notices to give: each user has so many, and pods share a user."""

_log = logging.getLogger(__name__)


def read_target(file: Path | None, fallback: str) -> int | None:
    """The target as it is now; None while there is none."""
    return parse_number(_read(file, fallback))


def _read(file: Path | None, fallback: str) -> str:
    try:
        text = file.read_text().strip() if file else ""
    except (OSError, UnicodeDecodeError):
        text = ""
    return text or fallback.strip()


class TargetWatch:
    """Reads the target from a file, and from ``fallback`` while the file is empty or missing."""

    def __init__(self, file: Path, fallback: str, report: Callable[[int | None], None]) -> None:
        """``report`` gets every new target, on this watch's own thread."""
        self._file = file
        self._fallback = fallback
        self._report = report
        self._last: str | None = None
        self._stopped = False
        self._thread = threading.Thread(target=self._run, name="target-watch", daemon=True)

    def start(self) -> None:
        """Report what is there, then watch."""
        self.look()
        self._thread.start()

    def stop(self) -> None:
        """Watch no more."""
        self._stopped = True

    def look(self) -> None:
        """Read once."""
        text = _read(self._file, self._fallback)
        if text == self._last:
            return
        self._last = text
        target = parse_number(text) if text else None
        if text and target is None:
            _log.error("the target %r in %s is no version number; ignored", text[:50], self._file)
        else:
            self._report(target)

    def _run(self) -> None:
        try:
            notices = FolderNotices(self._file.parent)
        except OSError as error:
            _log.warning("no notices of changes (%s); the target is looked at instead", error)
            self._look_often()
            return
        self.look()
        while not self._stopped:
            # A file system that gives no notices still has it looked at now and then.
            notices.wait(RELOOK_SECONDS)
            self.look()
        notices.close()

    def _look_often(self) -> None:
        while not self._stopped:
            time.sleep(LOOK_SECONDS)
            self.look()
