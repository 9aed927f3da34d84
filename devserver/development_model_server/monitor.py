"""Observing states: a bus for their changes, and a memory of them.

A memory keeps the last state of every version for ever, END included, as TensorFlow Serving's
``ServableStateMonitor`` does; this is what GetModelStatus answers from.
"""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING

from development_model_server.servable import ServableId, ServableState, State

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

_logger = logging.getLogger(__name__)
_REMINDER_SECONDS = 30.0


class EventBus:
    """Passes each change of state to every subscriber, in the thread that publishes it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._subscribers: list[Callable[[ServableState], None]] = []

    def subscribe(self, subscriber: Callable[[ServableState], None]) -> None:
        """Call ``subscriber`` from now on."""
        with self._lock:
            self._subscribers.append(subscriber)

    def unsubscribe(self, subscriber: Callable[[ServableState], None]) -> None:
        """Call ``subscriber`` no more."""
        with self._lock:
            self._subscribers.remove(subscriber)

    def publish(self, state: ServableState) -> None:
        """Tell every subscriber."""
        with self._lock:
            for subscriber in self._subscribers:
                subscriber(state)


class StateMonitor:
    """The last known state of every version since this monitor was made."""

    def __init__(self, bus: EventBus) -> None:
        self._changed = threading.Condition()
        self._states: dict[str, dict[int, ServableState]] = {}
        self._bus = bus
        bus.subscribe(self._record)

    def close(self) -> None:
        """Stop observing."""
        self._bus.unsubscribe(self._record)

    def _record(self, state: ServableState) -> None:
        with self._changed:
            self._states.setdefault(state.id.name, {})[state.id.version] = state
            self._changed.notify_all()

    def versions(self, name: str) -> list[ServableState]:
        """Every version of a model, the highest number first."""
        with self._changed:
            known = self._states.get(name, {})
            return [known[version] for version in sorted(known, reverse=True)]

    def version(self, servable: ServableId) -> ServableState | None:
        """One version's state, or None if it was never heard of."""
        with self._changed:
            return self._states.get(servable.name, {}).get(servable.version)

    def wait_until_settled(self, names: Collection[str]) -> dict[ServableId, ServableState]:
        """Wait until each named model has a version that is AVAILABLE or at its END.

        There is no deadline, as in TensorFlow Serving: a model without any version keeps its
        server waiting. What is waited for is logged every half minute.

        Returns:
            For each model its highest version in one of these two states.
        """
        with self._changed:
            while True:
                settled = {name: self._settled(name) for name in names}
                waiting = sorted(name for name, state in settled.items() if state is None)
                if not waiting:
                    return {state.id: state for state in settled.values() if state is not None}
                if not self._changed.wait(_REMINDER_SECONDS):
                    _logger.info(
                        "Waiting for a first version of: %s. Is there a numbered folder below its"
                        " base path?",
                        ", ".join(waiting),
                    )

    def _settled(self, name: str) -> ServableState | None:
        known = self._states.get(name, {})
        for version in sorted(known, reverse=True):
            if known[version].state in (State.AVAILABLE, State.END):
                return known[version]
        return None
