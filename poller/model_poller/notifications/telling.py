"""Telling how a queue or a subscription is, once a change."""

from __future__ import annotations

import logging
import math
import threading
from typing import TYPE_CHECKING

from model_poller.retry import RetryPolicy
from model_poller.status import NotificationsStatus

if TYPE_CHECKING:
    from collections.abc import Callable

TURN_SECONDS = 180.0
"""So long the calls of one turn may take where each of them runs into its time limit."""
LAST_RETRY_SECONDS = 60.0
"""The longest pause between two tries."""

_log = logging.getLogger(__name__)


class Teller:
    """Reports and logs what differs from the last time; from any thread."""

    def __init__(self, name: str, report: Callable[[NotificationsStatus], None]) -> None:
        self._name = name
        self._report = report
        self._told: NotificationsStatus | None = None
        self._lock = threading.Lock()

    @property
    def connected(self) -> bool:
        """Whether the last that was told is well."""
        told = self._told
        return told is not None and told.connected

    def well(self) -> bool:
        """It can be listened to; whether that is new."""
        return self._tell(NotificationsStatus(connected=True))

    def wrong(self, message: str) -> None:
        """It can't be listened to now."""
        self._tell(NotificationsStatus(connected=False, message=message))

    def _tell(self, status: NotificationsStatus) -> bool:
        with self._lock:
            if status == self._told:
                return False
            self._told = status
        if status.connected:
            _log.info("listening to %s", self._name)
        else:
            _log.warning("%s; versions are found by looking meanwhile", status.message)
        self._report(status)
        return True


def pause(failures: int) -> float:
    """Seconds to wait after so many failures in a row."""
    return RetryPolicy(math.inf, 1.0, LAST_RETRY_SECONDS).pause(failures)
