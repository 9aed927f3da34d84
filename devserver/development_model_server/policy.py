"""Which version to load or unload next: TensorFlow Serving's AvailabilityPreservingPolicy.

Pure functions of what is managed. A version that isn't wanted any more stays until a wanted one is
ready, so a model is never without an answer while there is one to give.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from development_model_server.servable import ServableId


class Stage(enum.Enum):
    """How far a managed version is."""

    NEW = enum.auto()
    LOADING = enum.auto()
    READY = enum.auto()
    UNLOADING = enum.auto()
    DISABLED = enum.auto()
    ERROR = enum.auto()

    @property
    def quiet(self) -> bool:
        """Nothing of it is in memory and nothing is under way: it can be forgotten."""
        return self in (Stage.NEW, Stage.DISABLED, Stage.ERROR)


class Kind(enum.Enum):
    """What to do with a version. Unloads go before loads."""

    UNLOAD = enum.auto()
    LOAD = enum.auto()


@dataclass(frozen=True)
class Action:
    """One step of the manager."""

    kind: Kind
    id: ServableId


@dataclass(frozen=True)
class Snapshot:
    """A managed version as the policy sees it."""

    id: ServableId
    stage: Stage
    aspired: bool


def next_action(streams: Iterable[Sequence[Snapshot]]) -> Action | None:
    """The one action to take now, over the versions of every model."""
    actions = [action for versions in streams if (action := _next_for_model(versions))]
    return min(actions, key=lambda action: action.kind is not Kind.UNLOAD, default=None)


def _next_for_model(versions: Sequence[Snapshot]) -> Action | None:
    aspired = [version for version in versions if version.aspired]
    unwanted = [
        version for version in versions if not version.aspired and version.stage is Stage.READY
    ]
    replaceable = (
        not aspired or any(version.stage is Stage.READY for version in aspired) or len(unwanted) > 1
    )
    if unwanted and replaceable:
        return Action(Kind.UNLOAD, min(version.id for version in unwanted))
    new = [version.id for version in aspired if version.stage is Stage.NEW]
    return Action(Kind.LOAD, max(new)) if new else None
