"""Logs as text or as one JSON object a line."""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime


class JsonFormatter(logging.Formatter):
    """One line per record: time (RFC 3339, UTC), level, logger, message, and a traceback if any."""

    def format(self, record: logging.LogRecord) -> str:
        """See `logging.Formatter.format`."""
        moment = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        line = {
            "time": moment,
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


LEVELS = ("debug", "info", "warning", "error")


def set_up(style: str, level: str = "info") -> None:
    """Send the poller's log to stderr; ``style`` is json or text, ``level`` one of LEVELS.

    Libraries tell from warnings on, and with ``debug`` from what they think worth a word.
    """
    least = logging.getLevelNamesMapping()[level.upper()]
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        JsonFormatter()
        if style == "json"
        else logging.Formatter("%(asctime)s %(levelname)-7s %(message)s")
    )
    others = max(least, logging.WARNING) if least > logging.DEBUG else logging.INFO
    logging.basicConfig(level=others, handlers=[handler], force=True)
    logging.getLogger("model_poller").setLevel(least)
