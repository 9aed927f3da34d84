"""What this pod is assigned: its target, the versions to serve, and those that failed elsewhere.

The operator writes it as three short texts, into annotations of the pod (which the kubelet shows
as files) and into a ConfigMap (which a new pod gets as environment variables):

    target-version        TARGET_VERSION         4
    served-versions       SERVED_VERSIONS        4,2
    quarantined-versions  QUARANTINED_VERSIONS   3@5c1f0a9be27d4416
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from model_poller.process.threads import Worker
from model_poller.status import AssignmentStatus
from model_poller.versions import parse_number
from model_poller.volume.notices import FolderNotices

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

RELOOK_SECONDS = 5.0
LOOK_SECONDS = 0.1
"""Where the kernel has no notices to give: each user has so many, and pods share a user."""
SERVED_FILE: Final = "served-versions"
QUARANTINED_FILE: Final = "quarantined-versions"
"""Both beside the target's file."""
MAX_TEXT: Final = 64 << 10
"""Bytes that are read of a text; the operator writes far less."""

_DATA: Final = "..data"
"""The link by whose swap the kubelet changes all files of a volume at once."""

_log = logging.getLogger(__name__)

NOTHING: Final = AssignmentStatus()


@dataclass(frozen=True, slots=True)
class Assignment:
    """What this pod is to serve."""

    target: int | None = None
    """None while nobody has said."""
    served: tuple[int, ...] = ()
    """The target and the versions beside it; empty where that is decided here."""
    quarantined: frozenset[tuple[int, str]] = frozenset()
    """Number and fingerprint of versions that failed on other pods."""
    texts: AssignmentStatus | None = None
    """What it was read from."""


class InvalidTargetError(Exception):
    """The target is no version number."""


def from_environment(environment: Mapping[str, str]) -> AssignmentStatus:
    """The texts that a pod starts with."""
    return AssignmentStatus(
        target=environment.get("TARGET_VERSION", "").strip(),
        served=environment.get("SERVED_VERSIONS", "").strip(),
        quarantined=environment.get("QUARANTINED_VERSIONS", "").strip(),
    )


def read(file: Path | None, fallback: AssignmentStatus) -> AssignmentStatus:
    """The texts beside ``file``, the target's own; ``fallback`` while there are none.

    All of them are of one moment: of the folder that the kubelet's link led to.
    """
    texts = NOTHING
    for _ in range(10):
        if file is None:
            break
        link = file.parent / _DATA
        folder = link.resolve() if link.exists() else file.parent
        texts = AssignmentStatus(
            target=_text(folder / file.name),
            served=_text(folder / SERVED_FILE),
            quarantined=_text(folder / QUARANTINED_FILE),
        )
        if folder == file.parent or folder == link.resolve():
            break
    return fallback if texts == NOTHING else texts


def _text(file: Path) -> str:
    try:
        with file.open("rb") as opened:
            return opened.read(MAX_TEXT).decode().strip()
    except (OSError, UnicodeDecodeError):
        return ""


def parse(texts: AssignmentStatus) -> Assignment:
    """The meaning of the texts; of the lists, what can't be understood is left out.

    Raises:
        InvalidTargetError: the target is no version number.
    """
    target = parse_number(texts.target) if texts.target else None
    if texts.target and target is None:
        raise InvalidTargetError(texts.target)
    entries = [part.partition("@") for part in _parts(texts.quarantined)]
    quarantined = frozenset(
        (version, fingerprint)
        for number, _, fingerprint in entries
        if (version := parse_number(number)) is not None
    )
    served = [parse_number(part) for part in _parts(texts.served)]
    # Without the target, unless that failed, the list is of an earlier decision: an older operator
    # has changed the target alone.
    is_current = target in served or target in {version for version, _ in quarantined}
    return Assignment(
        target=target,
        served=tuple(v for v in served if v is not None) if is_current else (),
        quarantined=quarantined,
        texts=None if texts == NOTHING else texts,
    )


def _parts(text: str) -> list[str]:
    return [part for raw in text.split(",") if (part := raw.strip())]


class AssignmentWatch:
    """Reads the assignment from files, and from ``fallback`` while they are empty or missing."""

    def __init__(
        self, file: Path, fallback: AssignmentStatus, report: Callable[[Assignment], None]
    ) -> None:
        """``file`` is the target's; ``report`` gets every new assignment, on a thread of its own.

        ``report`` gets the first one by `start`.
        """
        self._file = file
        self._fallback = fallback
        self._report = report
        self._last: AssignmentStatus | None = None
        self._notices: FolderNotices | None = None
        self.worker = Worker("assignment watch", self._turn, ended=self._close)

    def start(self) -> None:
        """Report what is there, then watch."""
        self.look()
        try:
            self._notices = FolderNotices(self._file.parent)
        except OSError as error:
            _log.warning("no notices of changes (%s); the target is looked at instead", error)
        self.worker.start()

    def stop(self) -> None:
        """Watch no more."""
        self.worker.stop()

    def look(self) -> None:
        """Read once."""
        texts = read(self._file, self._fallback)
        if texts == self._last:
            return
        self._last = texts
        try:
            assignment = parse(texts)
        except InvalidTargetError:
            _log.error(
                "the target %r in %s is no version number; ignored", texts.target[:50], self._file
            )
        else:
            self._report(assignment)

    def _close(self) -> None:
        if self._notices:
            self._notices.close()

    def _turn(self) -> None:
        self.look()
        if self._notices:
            # A file system that gives no notices still has it looked at now and then.
            self._notices.wait(RELOOK_SECONDS)
        else:
            self.worker.pause(LOOK_SECONDS)
