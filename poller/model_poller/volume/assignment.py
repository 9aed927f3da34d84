"""What this pod is assigned: its target, the versions to serve, and those that failed elsewhere.

The operator writes it as short texts, into annotations of the pod (which the kubelet shows as
files) and into a ConfigMap (which a new pod gets as environment variables):

    target-version        TARGET_VERSION         4
    served-versions       SERVED_VERSIONS        4,2
    quarantined-versions  QUARANTINED_VERSIONS   3@5c1f0a9be27d4416
    rollout                                      {"version":5,"key":"...","golden":{}}

What a rollout asks is of a moment: a pod that starts is not asked by its environment.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import msgspec

from model_poller.process.threads import Worker
from model_poller.status import AssignmentStatus, RolloutTask, decode_task
from model_poller.versions import parse_number
from model_poller.volume.notices import FolderNotices

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

RELOOK_SECONDS = 5.0
LOOK_SECONDS = 0.1
"""Where the kernel has no notices to give: each user has so many, and pods share a user."""
SERVED_FILE: Final = "served-versions"
_TRIES: Final = 10
QUARANTINED_FILE: Final = "quarantined-versions"
ROLLOUT_FILE: Final = "rollout"
"""All three beside the target's file."""
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
    rollout: RolloutTask | None = None
    """What a rollout asks of this pod."""
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


class UnreadableError(Exception):
    """The texts can't be read at the moment."""


def read(file: Path | None, fallback: AssignmentStatus) -> AssignmentStatus:
    """The texts beside ``file``, the target's own; ``fallback`` while there are none.

    All of them are of one moment: of the folder that the kubelet's link leads to.

    Raises:
        UnreadableError: there is something that can't be read, or no two looks agree.
    """
    if file is None:
        return fallback
    for _ in range(_TRIES):
        folder = _data(file.parent)
        texts = AssignmentStatus(
            target=_text(folder / file.name),
            served=_text(folder / SERVED_FILE),
            quarantined=_text(folder / QUARANTINED_FILE),
            rollout=_text(folder / ROLLOUT_FILE),
        )
        # The kubelet deletes the folder that its link led to before.
        if folder == _data(file.parent):
            return texts if _tells(texts) else _with_rollout(fallback, texts)
    raise UnreadableError(f"{file.parent} changes all the time")


def _tells(texts: AssignmentStatus) -> bool:
    """Whether they say what to serve or not to serve; what a rollout asks says neither."""
    return bool(texts.target or texts.served or texts.quarantined)


def _with_rollout(texts: AssignmentStatus, other: AssignmentStatus) -> AssignmentStatus:
    return msgspec.structs.replace(texts, rollout=other.rollout)


def _data(folder: Path) -> Path:
    try:
        return folder / (folder / _DATA).readlink()
    except OSError:
        return folder


def _text(file: Path) -> str:
    try:
        with file.open("rb") as opened:
            content = opened.read(MAX_TEXT + 1)
    except FileNotFoundError:
        return ""
    except OSError as error:
        raise UnreadableError(f"{file} can't be read: {error.strerror}") from error
    if len(content) > MAX_TEXT:
        raise UnreadableError(f"{file} is longer than {MAX_TEXT} bytes")
    try:
        return content.decode().strip()
    except UnicodeDecodeError:
        raise UnreadableError(f"{file} is no text") from None


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
        rollout=decode_task(texts.rollout),
        texts=None if texts == NOTHING else texts,
    )


def fault(texts: AssignmentStatus) -> tuple[str, str, str] | None:
    """The first text that can't be understood: the variable's name, its value, what it has to be.

    Stricter than `parse`, which takes what a newer operator may write: what a user sets is either
    understood or refused.
    """
    if texts.target and parse_number(texts.target) is None:
        return (
            "TARGET_VERSION",
            texts.target,
            "a version number such as 4; leave it out for the newest",
        )
    for part in _parts(texts.served):
        if parse_number(part) is None:
            return "SERVED_VERSIONS", texts.served, "version numbers with commas between them: 4,2"
    for part in _parts(texts.quarantined):
        number, at, fingerprint = part.partition("@")
        if parse_number(number) is None or not at or not fingerprint:
            form = "NUMBER@FINGERPRINT with commas between them: 3@5c1f0a9be27d4416"
            return "QUARANTINED_VERSIONS", texts.quarantined, form
    return None


def _parts(text: str) -> list[str]:
    return [part for raw in text.split(",") if (part := raw.strip())]


class AssignmentWatch:
    """Reads the assignment from files, or ``fallback`` as long as these have never told any.

    Afterwards the last one counts while they are empty, missing or unreadable: what a pod was
    started with is older.
    """

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
        self._has_told = False
        self._fault = ""
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
        try:
            texts = read(self._file, NOTHING)
        except UnreadableError as error:
            if str(error) != self._fault:
                _log.warning("%s; what was told last counts meanwhile", error)
            self._fault = str(error)
            return
        self._fault = ""
        if _tells(texts):
            self._has_told = True
        else:
            known = self._last if self._has_told and self._last else self._fallback
            texts = known if texts == NOTHING else _with_rollout(known, texts)
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
            if texts.rollout and assignment.rollout is None:
                _log.error("what %s asks can't be read; ignored", self._file.parent / ROLLOUT_FILE)
            self._report(assignment)

    def _close(self) -> None:
        if self._notices:
            self._notices.close()

    def _turn(self) -> None:
        self.look()
        if self._notices and not self._fault:
            # A file system that gives no notices still has it looked at now and then.
            self._notices.wait(RELOOK_SECONDS)
        else:
            self.worker.pause(LOOK_SECONDS)
