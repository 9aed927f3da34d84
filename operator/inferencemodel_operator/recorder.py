"""Writes Events as client-go's recorder does: equal ones become a series, and new ones are few.

The rules are those of k8s.io/client-go/tools/events/event_broadcaster.go (series) and
tools/record/events_cache.go (how many new Events an object gets).
"""

from __future__ import annotations

import asyncio
import datetime
import logging
import time
from typing import TYPE_CHECKING, Any, Final

import msgspec

from inferencemodel_operator import events, rights
from inferencemodel_operator.cluster import EVENTS
from inferencemodel_operator.errors import OperatorError
from inferencemodel_operator.logs import about
from inferencemodel_operator.pace import Bucket

if TYPE_CHECKING:
    from inferencemodel_operator.cluster import Cluster
    from inferencemodel_operator.events import Change
    from inferencemodel_operator.observe.objects import Key, Model

logger = logging.getLogger(__name__)

BURST: Final = 25
REFILL_SECONDS: Final = 300.0
"""An InferenceModel gets so many new Events at once, and then one each five minutes."""
SERIES_SECONDS: Final = 360.0
"""What happens again within so long is counted in the Event that there is."""
UPDATE_SECONDS: Final = 60.0
"""The second of a series is written at once, and then its count so often."""
FLUSH_SECONDS: Final = 30.0


class _Series(msgspec.Struct):
    """One Event, and how often it has happened."""

    namespace: str
    name: str
    at: float
    """When it happened last."""
    count: int = 1
    written: int = 1
    """The count that the Event has."""
    update_at: float = 0.0

    def is_due(self, now: float) -> bool:
        """Whether its count is to be written."""
        return self.count > self.written and now >= self.update_at


class _Stream(msgspec.Struct):
    """The Events of one InferenceModel."""

    key: Key
    series: dict[Change, _Series] = {}
    bucket: Bucket = msgspec.field(
        default_factory=lambda: Bucket(burst=BURST, seconds=REFILL_SECONDS)
    )


class Recorder:
    """Tells in Events what happened to InferenceModels; none of its failures is anybody's."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._streams: dict[str, _Stream] = {}

    async def record(self, model: Model, change: Change) -> None:
        """Tell of one change: in a new Event, in one that there is, or, of too many, not at all."""
        now = time.monotonic()
        stream = self._streams.setdefault(model.uid, _Stream(model.key))
        series = stream.series.get(change)
        if series is not None and now < series.at + SERIES_SECONDS:
            series.at = now
            series.count += 1
            if series.is_due(now):
                await self._update(stream, change, series)
        elif stream.bucket.try_take(now):
            await self._create(stream, model, change)

    async def run(self) -> None:
        """Write counts that are due, and forget what is over; ends only by being cancelled."""
        while True:
            await asyncio.sleep(FLUSH_SECONDS)
            await self.flush()

    async def flush(self) -> None:
        """Write counts that are due, and forget what is over."""
        now = time.monotonic()
        for uid, stream in list(self._streams.items()):
            for change, series in list(stream.series.items()):
                over = now >= series.at + SERIES_SECONDS
                if series.is_due(now) or (over and series.count > series.written):
                    await self._update(stream, change, series)
                if over:
                    stream.series.pop(change, None)
            if not stream.series and stream.bucket.is_full(now):
                del self._streams[uid]

    async def _create(self, stream: _Stream, model: Model, change: Change) -> None:
        event = events.event(model, change)
        metadata = event["metadata"]
        try:
            await self._cluster.create(EVENTS, event)
        except OperatorError as problem:
            # The status has it; an Event is a courtesy.
            _missed("no Event", problem, stream.key)
            return
        stream.series[change] = _Series(metadata["namespace"], metadata["name"], time.monotonic())

    async def _update(self, stream: _Stream, change: Change, series: _Series) -> None:
        series.written = series.count
        series.update_at = time.monotonic() + UPDATE_SECONDS
        try:
            found = await self._cluster.merge(
                EVENTS, series.namespace, series.name, {"series": _series(series)}
            )
        except OperatorError as problem:
            _missed("an Event was not updated", problem, stream.key)
            return
        if found is None:
            # The API server keeps Events for an hour, and anybody may delete them.
            stream.series.pop(change, None)


def _missed(what: str, problem: OperatorError, key: Key) -> None:
    if not rights.is_missing(problem):
        logger.warning("%s: %s", what, problem, extra=about(key))


def _series(series: _Series) -> dict[str, Any]:
    age = datetime.timedelta(seconds=time.monotonic() - series.at)
    return {
        "count": series.count,
        "lastObservedTime": events.micro_time(datetime.datetime.now(datetime.UTC) - age),
    }
