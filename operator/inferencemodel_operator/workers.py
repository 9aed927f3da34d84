"""The workers: each takes a key from the queue, has it reconciled, and judges how that went."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from typing import TYPE_CHECKING, Final

from inferencemodel_operator.errors import (
    NamespaceTerminatingError,
    NoRightError,
    PermanentError,
    StatusRefusedError,
    TransientError,
)
from inferencemodel_operator.logs import about

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from inferencemodel_operator.metrics import Metrics
    from inferencemodel_operator.observe.objects import Key
    from inferencemodel_operator.queue import WorkQueue

logger = logging.getLogger(__name__)

WORKERS: Final = 16
NAMESPACES: Final = 100
"""How many namespaces that go away are remembered."""
QUIET_RETRIES: Final = 4
"""The failure in a row of one InferenceModel that is worth a warning."""


async def _nobody() -> None:
    """Nobody has to be asked."""


class Workers:
    """Keeps the queue empty."""

    def __init__(
        self,
        queue: WorkQueue[Key],
        reconcile: Callable[[Key], Awaitable[None]],
        metrics: Metrics,
        permission: Callable[[], Awaitable[None]] = _nobody,
    ) -> None:
        """Take no key yet.

        Args:
            queue: gets back what failed, to be tried again with backoff.
            reconcile: one pass over one InferenceModel.
            metrics: counts the outcomes.
            permission: is awaited before each pass.
        """
        self._queue = queue
        self._reconcile = reconcile
        self._metrics = metrics
        self._permission = permission
        self._left: deque[str] = deque(maxlen=NAMESPACES)
        """Namespaces that were last found to be going away."""

    async def run(self) -> None:
        """Take key after key, so many at a time; ends only by being cancelled."""
        async with asyncio.TaskGroup() as group:
            for number in range(WORKERS):
                group.create_task(self._work(), name=f"worker {number}")

    async def _work(self) -> None:
        while True:
            await self._permission()
            key = await self._queue.get()
            try:
                with self._metrics.reconcile_seconds.time():
                    outcome = await self._attempt(key)
            finally:
                self._queue.done(key)
            self._metrics.reconciles.labels(outcome).inc()

    async def _attempt(self, key: Key) -> str:
        """One pass; the outcome for the metric."""
        try:
            await self._reconcile(key)
        except NamespaceTerminatingError as error:
            # What goes is told by its watch; nothing else is to be done.
            self._leave(key, error)
        except TransientError as error:
            self._queue.retry(key, at_least=getattr(error, "retry_after", 0.0))
            if self._queue.failures(key) == QUIET_RETRIES:
                logger.warning("still trying: %s", error, extra=about(key))
            return "retried"
        except (NoRightError, StatusRefusedError):
            # Logged where it arises, once for all.
            self._queue.retry(key)
            return "failed"
        except PermanentError as error:
            self._queue.retry(key)
            if self._queue.failures(key) == 1:
                logger.error("%s; trying again", error, extra=about(key))  # noqa: TRY400
            return "failed"
        except Exception:
            # One InferenceModel's surprise must not stop the others.
            delay = self._queue.retry(key)
            logger.exception("unexpected; trying again in %.1f s", delay, extra=about(key))
            return "failed"
        self._queue.forget(key)
        return "done"

    def _leave(self, key: Key, error: NamespaceTerminatingError) -> None:
        namespace = key[0]
        if namespace not in self._left:
            self._left.append(namespace)
            logger.info("namespace %s is being deleted, and is left alone: %s", namespace, error)
