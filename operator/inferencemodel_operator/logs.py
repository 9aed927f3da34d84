"""Log lines: JSON in the cluster, text in a shell, with the object's name beside the message."""

from __future__ import annotations

import logging
import sys
from typing import TYPE_CHECKING

from pythonjsonlogger.json import JsonFormatter

if TYPE_CHECKING:
    from inferencemodel_operator.observe.objects import Key


def about(key: Key) -> dict[str, str]:
    """The ``extra`` of a log line about an InferenceModel."""
    namespace, name = key
    return {"namespace": namespace, "inferencemodel": name}


class _TextFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        name = getattr(record, "inferencemodel", None)
        record.subject = f"{record.namespace}/{name}: " if name else ""  # type: ignore[attr-defined]
        return super().format(record)


class _Sparse(logging.Filter):
    """Lets one line a minute through."""

    def __init__(self) -> None:
        super().__init__()
        self._next = 0.0

    def filter(self, record: logging.LogRecord) -> bool:
        if record.levelno < logging.WARNING:
            return True
        if record.created < self._next:
            return False
        self._next = record.created + 60
        return True


def configure(style: str, level: str) -> None:
    """Send log lines to standard error.

    Args:
        style: ``json`` or ``text``.
        level: a level's name, such as ``info``.
    """
    handler = logging.StreamHandler(sys.stderr)
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
    # kopf tells every handled event, and every attempt of every watch to reach the API server.
    logging.getLogger("kopf.objects").setLevel(logging.WARNING)
    logging.getLogger("kopf.activities").setLevel(logging.WARNING)
    logging.getLogger("kopf._core.engines.activities").setLevel(logging.WARNING)
    logging.getLogger("kopf._cogs.clients.watching").addFilter(_Sparse())
