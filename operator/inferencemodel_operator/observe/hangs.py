"""Pods that have a node and don't start: only Events tell why.

A volume that can't be mounted, because its Secret is not there, say, shows neither in a pod's
conditions nor in its containers. So the Events of such a pod are asked for, now and then; nobody
else's are.
"""

from __future__ import annotations

import asyncio
import datetime
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

import msgspec

from inferencemodel_operator import bounds
from inferencemodel_operator.errors import OperatorError, TransientError
from inferencemodel_operator.observe import references, wire
from inferencemodel_operator.observe.troubles import WORDS, Trouble
from inferencemodel_operator.waits import Wait

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from inferencemodel_operator.cluster import Cluster
    from inferencemodel_operator.observe.objects import Key, Pod

FIRST_SECONDS: Final = 4.0
"""A pod that starts within so long is not asked about."""
LONGEST_SECONDS: Final = 60.0
MOST_MESSAGES: Final = 3
QUIET_FAILURES: Final = 2
"""Failures in a row, of those that heal by waiting, that nobody needs to hear of."""

_FAILURES: Final = {
    "FailedMount": "its volumes can't be mounted",
    "FailedMapVolume": "its volumes can't be mounted",
    "FailedAttachVolume": "its volumes can't be attached",
    "FailedCreatePodSandBox": "its network and sandbox can't be set up",
    "NetworkNotReady": "its network and sandbox can't be set up",
}
"""Reasons of Events (pkg/kubelet/events/event.go), and what they mean for the pod."""
_PROGRESS: Final = frozenset({"Pulling", "Pulled", "Created", "Started"})
REASONS: Final = (*_FAILURES, *sorted(_PROGRESS))
_LONG_AGO: Final = datetime.datetime.min.replace(tzinfo=datetime.UTC)


class _Hang(msgspec.Struct):
    uid: str
    pause: float
    due: float
    """When it is asked about, by the event loop's clock."""
    message: str = ""


class Hangs:
    """Why pods hang: one of each InferenceModel and template is asked about, for all."""

    def __init__(self, cluster: Cluster, later: Callable[[Key, float], None]) -> None:
        """Know of none.

        Args:
            cluster: is asked for Events.
            later: has an InferenceModel looked at again after so many seconds.
        """
        self._cluster = cluster
        self._later = later
        self._hangs: dict[Key, dict[str, _Hang]] = {}
        self._wait = Wait("reading the Events of pods that don't start", quiet=QUIET_FAILURES)

    async def look(self, key: Key, pods: Iterable[Pod]) -> None:
        """Ask about the pods of one InferenceModel that hang, when it is time."""
        hanging = {pod.template: pod for pod in pods if pod.is_hanging}
        if not hanging:
            self.forget(key)
            return
        before = self._hangs.get(key, {})
        now = asyncio.get_running_loop().time()
        self._hangs[key] = {
            template: before.get(template) or _Hang(pod.uid, FIRST_SECONDS, now + FIRST_SECONDS)
            for template, pod in hanging.items()
        }
        for template, hang in self._hangs[key].items():
            if now >= hang.due:
                await self._ask(hanging[template], hang)
                hang.pause = min(LONGEST_SECONDS, hang.pause * 2)
                hang.due = now + hang.pause
            self._later(key, hang.due - now)

    def trouble(self, pod: Pod) -> tuple[Trouble | None, str]:
        """Why a pod hangs, as far as it is known."""
        hang = self._hangs.get(pod.key, {}).get(pod.template) if pod.is_hanging else None
        if hang is None or not hang.message:
            return None, ""
        return Trouble.CONTAINER_CONFIG_FAILED, hang.message

    def forget(self, key: Key) -> None:
        """Drop what is known of an InferenceModel's pods."""
        self._hangs.pop(key, None)

    async def _ask(self, pod: Pod, hang: _Hang) -> None:
        try:
            found = await self._cluster.events_about(pod.namespace, pod.uid, REASONS)
        except OperatorError as error:
            self._wait.failed(error, quiet=None if isinstance(error, TransientError) else 0)
            return
        self._wait.worked()
        hang.uid, hang.message = pod.uid, reading(found, pod)


def reading(found: Iterable[dict[str, Any]], pod: Pod) -> str:
    """Why the pod does not start, by its Events; "" when it is on its way.

    What was said before its last progress is over, even where the Event is still there.
    """
    events = list(_legible(found))
    progress = max((_time(e) for e in events if e.reason in _PROGRESS), default=None)
    messages = {
        f"{_FAILURES[event.reason]}: {_why(event, pod)}"
        for event in events
        if event.reason in _FAILURES and (progress is None or _time(event) > progress)
    }
    # In one order, whichever the kubelet has tried last.
    return bounds.text("; ".join(sorted(messages)[:MOST_MESSAGES]))


def _legible(found: Iterable[dict[str, Any]]) -> Iterator[wire.Event]:
    """Anybody may write Events, with a time of the year 0, say: those tell nothing."""
    for event in found:
        with suppress(msgspec.ValidationError):
            yield msgspec.convert(event, wire.Event)


def _why(event: wire.Event, pod: Pod) -> str:
    missing = references.explain(event.note, pod.needs)
    if missing is not None:
        return missing
    return bounds.text(event.note, WORDS)


def _time(event: wire.Event) -> datetime.datetime:
    times = (
        event.series and event.series.last_observed_time,
        event.deprecated_last_timestamp,
        event.event_time,
    )
    return next((time for time in times if time), _LONG_AGO)
