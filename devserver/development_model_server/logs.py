"""Log lines on standard error in TensorFlow's form."""

from __future__ import annotations

import logging
import sys
from datetime import datetime


class _Formatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        moment = datetime.fromtimestamp(record.created)  # noqa: DTZ006 - TensorFlow logs local time
        severity = {"WARNING": "W", "ERROR": "E", "CRITICAL": "F"}.get(record.levelname, "I")
        line = (
            f"{moment:%Y-%m-%d %H:%M:%S.%f}: {severity} development_model_server/"
            f"{record.filename}:{record.lineno}] {record.getMessage()}"
        )
        if record.exc_info:
            line = f"{line}\n{self.formatException(record.exc_info)}"
        return line


def configure() -> None:
    """Send this server's log lines to standard error, and warnings of libraries too."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Formatter())
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logging.getLogger("development_model_server").setLevel(logging.INFO)
