"""The typed status of an InferenceModel, as the typed spec is in `spec`.

Everybody who reads or writes ``status`` shares these types: the operator, its Events, and the
kubectl plugin. docs/conditions.md says what each field counts. What an older or newer release has
written is read as far as it is understood: what is unknown is ignored, what is missing has a
default.
"""

from __future__ import annotations

from datetime import datetime  # noqa: TC003  # msgspec reads the annotations
from typing import TYPE_CHECKING, Any, Final

import msgspec

if TYPE_CHECKING:
    from collections.abc import Mapping

LISTED_VERSIONS: Final = 10
"""The most entries of ``versions``, ``quarantined`` and ``history``, by the CRD."""


class _Part(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    pass


class Condition(_Part, frozen=True, kw_only=True):
    """One of ``conditions``, as ``metav1.Condition`` has it."""

    type: str
    status: str
    """True, False or Unknown."""
    reason: str
    message: str = ""
    observed_generation: int = 0
    last_transition_time: datetime | None = None
    """Since when ``status`` is what it is; whole seconds."""


class Version(_Part, frozen=True, kw_only=True):
    """One of ``model.versions``."""

    version: int
    state: str
    replicas: int = 0
    """How many replicas' model servers say AVAILABLE."""


class Quarantine(_Part, frozen=True, kw_only=True):
    """One of ``model.quarantined``."""

    version: int
    reason: str
    message: str = ""


class Change(_Part, frozen=True, kw_only=True):
    """One of ``model.history``: a version that was the target, and how that ended."""

    version: int
    start_time: datetime
    active_time: datetime | None = None
    end_time: datetime | None = None
    duration: str = ""
    """From the decision to the last replica, as Go writes it: ``2.8s``."""
    result: str
    reason: str = ""


class Failure(_Part, frozen=True, kw_only=True):
    """``model.lastFailureInfo``: the version that failed last."""

    version: int
    reason: str
    message: str = ""
    time: datetime
    pod: str = ""


class RolloutCheck(_Part, frozen=True, kw_only=True):
    """One of ``model.rollout.checks``."""

    name: str
    """memory, signature, rehearsal, golden or live."""
    result: str
    """Passed, Failed, Inconclusive or Skipped."""
    message: str = ""
    time: datetime


class RolloutStatus(_Part, frozen=True, kw_only=True):
    """``model.rollout``: the rollout that runs, or the one that ran last."""

    version: int
    from_version: int | None = None
    """The stable one, which goes on serving, and to which a failure goes back."""
    phase: str
    step: int = 0
    """Counted from 1; 0 before the first one."""
    steps: int = 0
    """With the one that is implied at the end."""
    replicas_on: int | None = None
    """How many answer with the version; None once it has ended."""
    replicas_wanted: int | None = None
    """How many are to, in this step."""
    start_time: datetime
    step_started_time: datetime | None = None
    end_time: datetime | None = None
    message: str = ""
    checks: tuple[RolloutCheck, ...] = ()


class ModelStatus(_Part, frozen=True, kw_only=True):
    """``model``: everything about versions."""

    name: str = ""
    storage_uri: str = ""
    """Of the source that all of this is about; with another one it begins anew."""
    store: str = ""
    """The server that it is asked of; empty in what an older release wrote."""
    active_version: int | None = None
    target_version: int | None = None
    served_versions: tuple[int, ...] = ()
    """What every replica is to serve, newest first."""
    latest_version: int | None = None
    transition_status: str = ""
    disk_needed: str = ""
    """How large a replica's own volume has to be, as far as versions are known: ``3Gi``."""
    versions: tuple[Version, ...] = ()
    quarantined: tuple[Quarantine, ...] = ()
    history: tuple[Change, ...] = ()
    """Newest first."""
    last_failure: Failure | None = msgspec.field(default=None, name="lastFailureInfo")
    rollout: RolloutStatus | None = None


class Status(_Part, frozen=True, kw_only=True):
    """``status``."""

    observed_generation: int = -1
    conditions: tuple[Condition, ...] = ()
    url: str = ""
    replicas: int = 0
    ready_replicas: int = 0
    selector: str = ""
    replica_summary: str = ""
    model: ModelStatus = ModelStatus()

    def condition(self, kind: str) -> Condition | None:
        """One condition by its type; None while the operator has not reported it."""
        return next((c for c in self.conditions if c.type == kind), None)

    def to_object(self) -> dict[str, Any]:
        """The JSON object, without what has nothing to say.

        Of a list that becomes empty, server-side apply takes the field away as well.
        """
        pruned: dict[str, Any] = _prune(msgspec.to_builtins(self))
        return pruned


def decode(obj: Mapping[str, Any]) -> Status:
    """Read a live ``status``; one that can't be read is as none, and is written anew."""
    try:
        return msgspec.convert(obj, Status, strict=False)
    except msgspec.ValidationError:
        return Status()


def _prune(value: Any) -> Any:
    if isinstance(value, dict):
        pruned = {name: _prune(part) for name, part in value.items()}
        # metav1.Condition wants a message, be it empty.
        return {
            name: part
            for name, part in pruned.items()
            if part is not None and part != [] and (part != "" or name == "message")
        }
    if isinstance(value, list | tuple):
        return [_prune(part) for part in value]
    return value
