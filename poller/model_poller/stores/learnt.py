"""``gs://`` without a storage URI: messages about uploads tell which folder the versions are in."""

from __future__ import annotations

import logging
import threading
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from model_poller.archives import peek
from model_poller.checks.integrity import GRAPH_FILES
from model_poller.errors import AccessDeniedError, BucketNotFoundError, UnreachableError
from model_poller.stores.gcs import GcsSource
from model_poller.versions import split_path

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from model_poller.stores import Entry, StoredObject
    from model_poller.stores.credentials import Credentials
    from model_poller.stores.uri import Location

MAX_HEARD: Final = 100
"""Folders that wait to be looked into, and that are remembered to have been refused."""

_SHOWN: Final = 3
_SHOWN_CHARACTERS: Final = 200

_log = logging.getLogger(__name__)


class LearntSource(GcsSource):
    """The folder of one model's versions, once it is known.

    A bucket tells of all that is uploaded, so a folder of numbers is taken only with a SavedModel
    in it. The first such folder is the model's; one that has the model's own name replaces one of
    another name, and any replaces one whose bucket is gone. All others hold other models.
    """

    def __init__(
        self,
        model: str,
        known: Iterable[Location],
        remember: Callable[[Location], object],
        *,
        endpoint: str | None,
        anonymous: bool,
        credentials: Credentials,
    ) -> None:
        """``known`` are the folders of earlier runs, of which one is taken.

        ``remember`` is called with one that is learnt, on the thread that lists.
        """
        found = sorted(known, key=lambda place: place.model != model)[:1]
        super().__init__(found, endpoint=endpoint, anonymous=anonymous, credentials=credentials)
        self._model = model
        self._remember = remember
        self._heard: dict[Location, str] = {}
        self._heard_lock = threading.Lock()
        self._refused: dict[Location, None] = {}
        self._is_lost = False

    def hear(self, place: Location, name: str) -> bool:
        """Take in an object whose version would lie there; whether a look may learn from it."""
        if place in self._locations or place in self._refused:
            return False
        with self._heard_lock:
            if len(self._heard) < MAX_HEARD:
                self._heard[place] = name
        return True

    @property
    def remark(self) -> str:
        """See `Remarks.remark`: which folders are told of and not looked into."""
        # A copy: it is asked for on other threads, too.
        refused = list(self._refused)
        if not refused:
            return ""
        shown = ", ".join(place.uri[:_SHOWN_CHARACTERS] for place in refused[:_SHOWN])
        more = f" and {len(refused) - _SHOWN} more" if len(refused) > _SHOWN else ""
        return (
            f"{shown}{more} {'holds another model' if len(refused) == 1 else 'hold other models'}:"
            " give a poller of its own --storage-uri"
        )

    def survey(self) -> Iterator[StoredObject | Entry]:
        """See `Source.survey`."""
        with self._heard_lock:
            heard, self._heard = self._heard, {}
        for place, name in heard.items():
            try:
                self._judge(place, name)
            except BucketNotFoundError:
                _log.warning("%s is told of, but there is no such bucket", place.uri)
            except (AccessDeniedError, UnreachableError) as error:
                _log.warning("%s is told of, but can't be looked into: %s", place.uri, error)
                with self._heard_lock:
                    self._heard.setdefault(place, name)
        try:
            yield from super().survey()
        except BucketNotFoundError:
            self._is_lost = True
            raise
        self._is_lost = False

    def _judge(self, place: Location, name: str) -> None:
        if place in self._locations or not self._holds_model(place, name):
            return
        mine = place.model == self._model
        for current in self._locations:
            is_other = mine and current.model != self._model
            if not (self._is_lost or is_other):
                self._refuse(place, current)
                return
        own = replace(place, prefix=f"{place.prefix.rpartition('/')[0]}/{self._model}".lstrip("/"))
        if not mine and next(self._pages(own, "", into=True)).objects:
            self._refuse(place, own)
            return
        _log.info("versions are in %s", place.uri)
        self._locations = (place,)
        self._is_lost = False
        self._remember(place)

    def _holds_model(self, place: Location, name: str) -> bool:
        top, _ = split_path(name.removeprefix(place.key(""))) or ("", 0)
        wanted = {f"{top}/{graph}" for graph in GRAPH_FILES} | {top}
        # As a prefix this means the archive, or both forms of the graph.
        below = f"{top}/{GRAPH_FILES[0]}" if name != place.key(top) else top
        for page in self._pages(place, below, into=True):
            for stored in page.objects:
                if stored.path not in wanted:
                    continue
                if stored.path != top or peek.is_model(peek.names(self, stored), top):
                    return True
        return False

    def _refuse(self, place: Location, own: Location) -> None:
        if len(self._refused) < MAX_HEARD:
            self._refused[place] = None
        _log.warning(
            "%s is not looked into: the versions of %s are in %s, so it holds another model; give a"
            " poller of its own --storage-uri=%s",
            place.uri,
            self._model,
            own.uri,
            place.uri,
        )
