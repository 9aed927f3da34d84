"""InferenceModels and their pods as the API server gives them, typed as far as they are shown.

The status has the operator's own types, which know nothing of a cluster.

Readers of another release: what is unknown is ignored, what is missing has a default, and what
has another shape is left out (`lenient`).
"""

from __future__ import annotations

from datetime import datetime  # noqa: TC003  # msgspec reads the annotations
from typing import Any, Final

import msgspec

from inferencemodel_operator.status import (
    Condition,
    Quarantine,
    RolloutStatus,
    Status,
    Version,
)

ENDED: Final = frozenset({"Completed", "RolledBack", "Superseded"})
"""The phases of a rollout that is over."""


class ManagedFields(msgspec.Struct, frozen=True, rename={"fields": "fieldsV1"}):
    """Who has set which fields."""

    manager: str = ""
    operation: str = ""
    """Apply for whoever declares them, Update for whoever changed them once."""
    fields: dict[str, Any] = {}
    """The tree of their names, each with ``f:`` before it."""


class Metadata(msgspec.Struct, frozen=True, rename="camel"):
    """What every object has."""

    name: str
    namespace: str = ""
    uid: str = ""
    resource_version: str = ""
    generation: int = 0
    creation_timestamp: datetime | None = None
    deletion_timestamp: datetime | None = None
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}
    managed_fields: tuple[ManagedFields, ...] = ()


class ModelSpec(msgspec.Struct, frozen=True, rename="camel"):
    """``spec.model``."""

    storage_uri: str = ""
    name: str = ""
    version: int | None = None
    min_version: int | None = None


class Pause(msgspec.Struct, frozen=True):
    """A step's ``pause``."""

    duration: str | None = None
    """None until somebody promotes."""


class RolloutStep(msgspec.Struct, frozen=True):
    """One of ``spec.rollout.steps``."""

    replicas: int | str
    pause: Pause | None = None


class RolloutSpec(msgspec.Struct, frozen=True):
    """``spec.rollout``."""

    steps: tuple[RolloutStep, ...] = (RolloutStep(1),)
    paused: bool = False


class Spec(msgspec.Struct, frozen=True, rename="camel"):
    """``spec``."""

    model: ModelSpec = ModelSpec()
    replicas: int = 1
    suspend: bool = False
    autoscaling: dict[str, Any] | None = None
    rollout: RolloutSpec = RolloutSpec()


class InferenceModel(msgspec.Struct, frozen=True, rename="camel"):
    """The resource."""

    metadata: Metadata
    spec: Spec = Spec()
    status: Status = Status()

    @property
    def served_name(self) -> str:
        """The name under which the model server serves the model."""
        return self.spec.model.name or self.metadata.name

    @property
    def judged(self) -> bool:
        """Whether the status answers the present spec."""
        return self.status.observed_generation == self.metadata.generation > 0

    def condition(self, kind: str) -> Condition | None:
        """One condition, None while the operator has not told it."""
        return self.status.condition(kind)

    def is_true(self, kind: str) -> bool:
        """Whether a condition is there and True, and not of an older spec."""
        found = self.condition(kind)
        # An older release leaves the generation of a condition out.
        return (
            found is not None
            and found.status == "True"
            and found.observed_generation in (0, self.metadata.generation)
        )

    def state_of(self, version: int) -> Version | None:
        """What the status tells about one version."""
        return next((v for v in self.status.model.versions if v.version == version), None)

    @property
    def running(self) -> RolloutStatus | None:
        """The rollout that has not ended, be it on its way back."""
        found = self.status.model.rollout
        return found if found is not None and found.phase not in ENDED else None

    def quarantine_of(self, version: int | None) -> Quarantine | None:
        """Why a version is not tried again; None when it is not quarantined, or is rolled out anew,
        as what was quarantined were other objects under its number."""
        running = self.running
        if running is not None and running.version == version and running.phase != "RollingBack":
            return None
        return next((q for q in self.status.model.quarantined if q.version == version), None)


class ListMetadata(msgspec.Struct, frozen=True):
    """What a list has."""

    continue_: str = msgspec.field(default="", name="continue")
    """Where the next page begins; empty on the last one."""
    resource_version: str = msgspec.field(default="", name="resourceVersion")
    """As of when it is; where a watch goes on."""


class Objects(msgspec.Struct, frozen=True):
    """A page of a list."""

    items: tuple[Any, ...] = ()
    metadata: ListMetadata = ListMetadata()


class Named(msgspec.Struct, frozen=True):
    """Any object, as far as it has a name."""

    metadata: Metadata


class RawObjects(msgspec.Struct, frozen=True):
    """The same before its objects are read."""

    items: tuple[msgspec.Raw, ...] = ()
    metadata: ListMetadata = ListMetadata()


class WatchEvent(msgspec.Struct, frozen=True):
    """One thing that a watch tells."""

    type: str
    """ADDED, MODIFIED, DELETED, BOOKMARK or ERROR."""
    object: dict[str, Any] = {}


class Waiting(msgspec.Struct, frozen=True):
    """Why a container does not run yet."""

    reason: str = ""
    message: str = ""


class Terminated(msgspec.Struct, frozen=True, rename="camel"):
    """How a container ended."""

    reason: str = ""
    exit_code: int = 0


class ContainerState(msgspec.Struct, frozen=True):
    """What a container does now, or did last."""

    waiting: Waiting | None = None
    terminated: Terminated | None = None


class Container(msgspec.Struct, frozen=True, rename="camel"):
    """One of a pod's ``containerStatuses``."""

    name: str
    restart_count: int = 0
    state: ContainerState = ContainerState()
    last_state: ContainerState = ContainerState()


class PodCondition(msgspec.Struct, frozen=True):
    """One of a pod's conditions."""

    type: str
    status: str
    reason: str = ""
    message: str = ""


class PodStatus(msgspec.Struct, frozen=True, rename="camel"):
    """A pod's ``status``."""

    phase: str = ""
    conditions: tuple[PodCondition, ...] = ()
    init_container_statuses: tuple[Container, ...] = ()
    container_statuses: tuple[Container, ...] = ()


class PodSpec(msgspec.Struct, frozen=True, rename="camel"):
    """A pod's ``spec``."""

    node_name: str = ""
    """Empty until it is scheduled."""


class Pod(msgspec.Struct, frozen=True):
    """One replica."""

    metadata: Metadata
    spec: PodSpec = PodSpec()
    status: PodStatus = PodStatus()

    @property
    def terminating(self) -> bool:
        """Whether it drains and goes."""
        return self.metadata.deletion_timestamp is not None

    @property
    def containers(self) -> tuple[Container, ...]:
        """What is known of its containers, the poller's first."""
        return self.status.init_container_statuses + self.status.container_statuses

    def condition(self, kind: str) -> PodCondition | None:
        """One condition, None while it is not there."""
        return next((c for c in self.status.conditions if c.type == kind), None)

    @property
    def ready(self) -> bool:
        """Whether it gets requests."""
        found = self.condition("Ready")
        return found is not None and found.status == "True"


class Event(msgspec.Struct, frozen=True, rename="camel"):
    """Something that was told about an object."""

    type: str = ""
    """Normal or Warning."""
    reason: str = ""
    message: str = ""
    first_timestamp: datetime | None = None
    last_timestamp: datetime | None = None
    event_time: datetime | None = None

    @property
    def time(self) -> datetime | None:
        """When it was told last."""
        times = [self.last_timestamp, self.event_time, self.first_timestamp]
        return max((time for time in times if time is not None), default=None)
