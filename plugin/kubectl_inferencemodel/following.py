"""All InferenceModels as they are now, by one list and the watches that go on from it."""

from __future__ import annotations

import random
import time
from typing import TYPE_CHECKING, Final

import msgspec

from kubectl_inferencemodel import lenient
from kubectl_inferencemodel.errors import GoneError
from kubectl_inferencemodel.resource import InferenceModel

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from kubectl_inferencemodel.cluster import Cluster
    from kubectl_inferencemodel.resource import WatchEvent

Key = tuple[str, str]
"""Namespace and name."""
_SHORTEST_WATCH: Final = 1.0
FIRST_PAUSE: Final = 0.5
LONGEST_PAUSE: Final = 30.0


class Change(msgspec.Struct, frozen=True):
    """One model, as it is now."""

    key: Key
    model: InferenceModel | None
    """None once it is deleted."""


class Listed(msgspec.Struct, frozen=True):
    """Every model was told once; there are no others."""

    keys: frozenset[Key]


class Pauses:
    """How long to leave the API server alone before the next list: longer with each that ends."""

    def __init__(self) -> None:
        self._pause = FIRST_PAUSE

    def after(self, seconds: float) -> float:
        """The seconds to wait after one that went on for so long; that it was for long ends it."""
        self._pause = FIRST_PAUSE if seconds > LONGEST_PAUSE else self._pause * 2
        self._pause = min(self._pause, LONGEST_PAUSE)
        return self._pause * random.uniform(0.7, 1)  # noqa: S311


def followed(
    cluster: Cluster,
    *,
    everywhere: bool,
    selector: str = "",
    pause: Callable[[float], object] = time.sleep,
) -> Iterator[Change | Listed | None]:
    """List, and watch for as long as that goes on from what was listed.

    It ends when the list has to be made anew. None is told now and then, as nothing changes.

    Raises:
        PluginError: it breaks off.
    """
    since, keys = "", set()
    for models, version in cluster.pages(everywhere=everywhere, selector=selector):
        since = version
        for model in models:
            key = model.metadata.namespace, model.metadata.name
            keys.add(key)
            yield Change(key, model)
    yield Listed(frozenset(keys))
    while True:
        begun = time.monotonic()
        try:
            for event in cluster.changes(since, everywhere=everywhere, selector=selector):
                since = _version(event) or since
                yield _change(event)
        except GoneError:
            return
        # One that is ended at once is not begun again at once.
        pause(max(begun + _SHORTEST_WATCH - time.monotonic(), 0))
        yield None


def _change(event: WatchEvent) -> Change | None:
    if event.type == "BOOKMARK":
        return None
    try:
        model = lenient.read(event.object, InferenceModel)
    except msgspec.ValidationError:
        # One that isn't understood must not hide the others.
        return None
    key = model.metadata.namespace, model.metadata.name
    return Change(key, None if event.type == "DELETED" else model)


def _version(event: WatchEvent) -> str:
    metadata = event.object.get("metadata")
    return str(metadata.get("resourceVersion", "")) if isinstance(metadata, dict) else ""
