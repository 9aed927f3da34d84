"""Log lines: JSON in the cluster, text in a shell, with the object's name beside the message."""

from __future__ import annotations

import copy
import logging
import sys
import time
from collections import OrderedDict
from typing import TYPE_CHECKING, Final, TextIO

import msgspec
from pythonjsonlogger.json import JsonFormatter

from inferencemodel_operator.pace import Bucket

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

    from inferencemodel_operator.observe.objects import Key

REPEAT_SECONDS: Final = 60.0
"""For how long a line isn't logged again."""
SWEEP_SECONDS: Final = 5.0
BURST: Final = 100
REFILL_SECONDS: Final = 1.0
"""One place in the code may log so many lines at once, and then one a second."""
MOST_LINES: Final = 2000
"""That are remembered."""


def about(key: Key) -> dict[str, str]:
    """The ``extra`` of a log line about an InferenceModel."""
    namespace, name = key
    return {"namespace": namespace, "inferencemodel": name}


class _TextFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        name = getattr(record, "inferencemodel", None)
        record.subject = f"{record.namespace}/{name}: " if name else ""  # type: ignore[attr-defined]
        return super().format(record)


class _Line(msgspec.Struct):
    """What was logged, and how often since."""

    record: logging.LogRecord
    until: float
    count: int = 0


class Repeats:
    """Keeps a fault that comes back all the time from filling the log.

    A warning or an error that is equal to an earlier one (by its place in the code, its text and
    its InferenceModel) is logged once a minute; so is any of kopf's from one place, for it counts
    attempts in its texts. Whatever its texts, one place in the code gets `BURST` lines at once and
    then one a second; for what is no warning, that goes for each InferenceModel. What was left out
    is told by its number, with the next line after a minute.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """``clock`` tells seconds. One that is put back would silence whoever has logged before."""
        self._clock = clock
        self._lines: OrderedDict[Hashable, _Line] = OrderedDict()
        self._places: OrderedDict[Hashable, Bucket] = OrderedDict()
        self._sweep_at = 0.0

    def take(self, record: logging.LogRecord) -> list[logging.LogRecord]:
        """What is to be logged now that this is."""
        now = self._clock()
        due = self._sweep(now)
        place, key = _place(record), _key(record)
        line = self._lines.get(key) if key is not None else None
        if line is not None and now < line.until:
            line.count += 1
            return due
        if not self._has_room(place, now):
            # The lines of one place that are too many are one more kind of line.
            self._lines.setdefault(place, _Line(record, now + REPEAT_SECONDS)).count += 1
            return due
        if key is not None:
            self._lines[key] = _Line(record, now + REPEAT_SECONDS)
        while len(self._lines) > MOST_LINES:
            due += _summary(self._lines.popitem(last=False)[1])
        return [*due, record]

    def _has_room(self, place: Hashable, now: float) -> bool:
        bucket = self._places.setdefault(place, Bucket(burst=BURST, seconds=REFILL_SECONDS))
        while len(self._places) > MOST_LINES:
            self._places.popitem(last=False)
        return bucket.try_take(now)

    def _sweep(self, now: float) -> list[logging.LogRecord]:
        if now < self._sweep_at:
            return []
        self._sweep_at = now + SWEEP_SECONDS
        over = [key for key, line in self._lines.items() if now >= line.until]
        return [record for key in over for record in _summary(self._lines.pop(key))]


def _subject(record: logging.LogRecord) -> tuple[str, str]:
    return getattr(record, "namespace", ""), getattr(record, "inferencemodel", "")


def _place(record: logging.LogRecord) -> Hashable:
    place = (record.pathname, record.lineno)
    return place if record.levelno >= logging.WARNING else (place, _subject(record))


def _key(record: logging.LogRecord) -> Hashable | None:
    """What equal lines have in common; None for one that may be repeated."""
    if record.levelno < logging.WARNING:
        return None
    place = (record.pathname, record.lineno)
    if record.name.partition(".")[0] == "kopf":
        return "kopf", place
    return place, record.getMessage(), _subject(record)


def _summary(line: _Line) -> list[logging.LogRecord]:
    if line.count == 0:
        return []
    summary = copy.copy(line.record)
    summary.created = time.time()
    summary.msg = f"{line.count} more like: {line.record.getMessage()}"
    summary.args = ()
    summary.exc_info = summary.exc_text = summary.stack_info = None
    return [summary]


class _Handler(logging.StreamHandler[TextIO]):
    def __init__(self) -> None:
        super().__init__(sys.stderr)
        self._repeats = Repeats()

    def emit(self, record: logging.LogRecord) -> None:
        for due in self._repeats.take(record):
            super().emit(due)


_CHATTY: Final = ("kopf.objects", "kopf.activities", "kopf._core.engines.activities")
_REPEATED: Final = (
    "kopf._cogs.clients.watching",
    "kopf._core.reactor.observation",
    "kopf._core.reactor.orchestration",
    "kopf._core.reactor.running",
)
"""Those of kopf's loggers that tell of each attempt what `watches` tells once, in words."""


def configure(style: str, level: str) -> None:
    """Send log lines to standard error.

    Args:
        style: ``json`` or ``text``.
        level: a level's name, such as ``info``.
    """
    handler = _Handler()
    handler.setFormatter(
        JsonFormatter(
            "%(levelname)s %(name)s %(message)s",
            rename_fields={"levelname": "level", "name": "logger"},
            timestamp="time",
        )
        if style == "json"
        else _TextFormatter("%(asctime)s %(levelname)-7s %(subject)s%(message)s")
    )
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    for name in _CHATTY:
        logging.getLogger(name).setLevel(logging.WARNING)
    for name in _REPEATED:
        logging.getLogger(name).setLevel(logging.CRITICAL)
