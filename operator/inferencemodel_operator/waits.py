"""What is waited for: logged once in words when it begins, and once when it is over."""

from __future__ import annotations

import logging
import time

from inferencemodel_operator.errors import NoRightError

logger = logging.getLogger(__name__)


class Wait:
    """One thing that the operator does again and again until it works."""

    def __init__(self, what: str, *, quiet: int = 0) -> None:
        """Wait for nothing yet.

        Args:
            what: is to be done, for the log, such as ``watching pods``.
            quiet: failures in a row that nobody needs to hear of.
        """
        self._what = what
        self._quiet = quiet
        self._failures = 0
        self._began = 0.0
        self._reasons: set[tuple[type[Exception], str]] = set()

    @property
    def failures(self) -> int:
        """Failures in a row."""
        return self._failures

    def failed(self, problem: Exception, *, quiet: int | None = None, verb: str = "") -> None:
        """It did not work.

        The problem is logged once for each class of problems: the texts of a server that is away
        differ from one attempt to the next.

        Args:
            problem: what stands in the way, in words.
            quiet: another number of failures that nobody needs to hear of.
            verb: of several rights that it takes, the one that is missing.
        """
        if self._failures == 0:
            self._began = time.monotonic()
        self._failures += 1
        bearable = self._quiet if quiet is None else quiet
        reason = type(problem), verb if isinstance(problem, NoRightError) else ""
        if self._failures > bearable and reason not in self._reasons:
            self._reasons.add(reason)
            logger.warning("waiting: %s: %s", self._what, problem)

    def worked(self) -> None:
        """It worked."""
        if self._reasons:
            seconds = time.monotonic() - self._began
            logger.info("waited for %.0f s: %s is back", seconds, self._what)
        self._failures = 0
        self._reasons.clear()
