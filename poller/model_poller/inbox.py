"""What the other threads have seen, for the main loop to look at when it comes round."""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from model_poller.live import Scrape
from model_poller.volume.assignment import Assignment

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from model_poller.model_server.figures import Figures
    from model_poller.model_server.server import Served
    from model_poller.status import NotificationsStatus, SourceStatus
    from model_poller.versions import StoredVersion

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Contents:
    """All of it, as of one moment."""

    source: SourceStatus
    notifications: NotificationsStatus | None = None
    found: Mapping[int, StoredVersion] | None = None
    """The last successful listing; None: there was none yet."""
    listing_is_fresh: bool = False
    """Whether the last look succeeded."""
    served: Served | None = None
    """None: the model server does not answer."""
    server_was_seen: bool = False
    assignment: Assignment = field(default_factory=Assignment)
    scrape: Scrape | None = None
    """The newest figures of the model server; None: nobody has asked for any."""


class Inbox:
    """Takes in from any thread, and wakes the main loop where there is something new."""

    def __init__(self, source: SourceStatus, wake: Callable[[], None]) -> None:
        self._wake = wake
        self._lock = threading.Lock()
        self._contents = Contents(source)

    def read(self) -> Contents:
        """What is known now."""
        with self._lock:
            return self._contents

    def on_look(self, status: SourceStatus, found: Mapping[int, StoredVersion] | None) -> None:
        """Take in what a look into the source gave."""
        with self._lock:
            before = self._contents
            self._contents = replace(
                before,
                source=status,
                listing_is_fresh=found is not None,
                found=before.found if found is None else found,
            )
        self._wake()

    def on_served(self, served: Served | None) -> None:
        """Take in the model server's words."""
        with self._lock:
            before = self._contents
            was_seen = before.server_was_seen or served is not None
            self._contents = replace(before, served=served, server_was_seen=was_seen)
        if served != before.served:
            self._wake()

    def on_figures(self, begun: float, figures: Figures) -> None:
        """Take in what the model server has counted by then."""
        with self._lock:
            self._contents = replace(self._contents, scrape=Scrape(begun, figures))
        self._wake()

    def on_assignment(self, assignment: Assignment) -> None:
        """Take in what this pod is to serve."""
        target = assignment.target
        _log.info(
            "told to serve %s%s%s",
            "nothing" if target is None else f"version {target}",
            f", of {assignment.texts.served}" if assignment.texts and assignment.served else "",
            f"; elsewhere failed {assignment.texts.quarantined}"
            if assignment.texts and assignment.quarantined
            else "",
        )
        with self._lock:
            self._contents = replace(self._contents, assignment=assignment)
        self._wake()

    def on_notifications(self, status: NotificationsStatus) -> None:
        """Take in how the subscription does."""
        with self._lock:
            self._contents = replace(self._contents, notifications=status)
        self._wake()
