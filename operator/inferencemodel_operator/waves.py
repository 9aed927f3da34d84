"""Whose pods may be restarted for the operator's own sake, and when; pure.

Another poller image, or another release of the operator, changes the pod template of every
InferenceModel. To roll all of them out at once would start a surge pod or more for each, and one
that doesn't work would reach everybody before anybody could say stop. So these changes go out to
some InferenceModels at a time, in the order of their names, and stop at the first that fails. What
somebody changes in a spec waits for nothing.
"""

from __future__ import annotations

import heapq
from enum import Enum, StrEnum, auto
from typing import TYPE_CHECKING, Final

import msgspec

from inferencemodel_operator import names
from inferencemodel_operator.children import deployment as deployments
from inferencemodel_operator.observe.troubles import Trouble

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from inferencemodel_operator.children.manifest import Manifest
    from inferencemodel_operator.observe.objects import Deployment, Key, Pod

WATCHED: Final = "Watched"
"""The mark on a Deployment whose template the operator changed by itself: that it is rolled out is
waited for."""
UNWATCHED: Final = "Unwatched"
"""The same of one that had failed before, so that its failure says nothing of the new template."""

PATIENCE: Final = 3600.0
"""Seconds without one more ready pod of the new template, after which a Deployment has failed.
Its own deadline may be one of years, and nobody else would ever have a turn."""

_FAILURES: Final = frozenset(
    {
        Trouble.IMAGE_PULL_FAILED,
        Trouble.CONTAINER_CONFIG_FAILED,
        Trouble.POLLER_CRASHED,
        Trouble.SERVER_CRASHED,
        Trouble.CONTAINER_CRASHED,
    }
)
"""Troubles of a pod that more time or another node doesn't heal."""


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """How one InferenceModel stands to a change of pod templates that is the operator's own."""

    waits: bool = False
    """It has yet to get the newest template."""
    moves: bool = False
    """Its pods are on their way to a template that it got by such a change."""
    failed: bool = False
    """They don't get there."""


SETTLED: Final = Standing()


class Hold(StrEnum):
    """Why an InferenceModel's pods don't have the newest template."""

    WAITING = "Waiting"
    """Others are before it."""
    STOPPED = "Stopped"
    """It did not work for one of them."""


def plan(standings: Mapping[Key, Standing], limit: int) -> frozenset[Key]:
    """Which of those that wait may get the newest template now.

    One that moves already may always: its pods are being restarted anyway. Of the others, the first
    by namespace and name, as long as no more than ``limit`` move and none has failed.
    """
    again = {key for key, standing in standings.items() if standing.waits and standing.moves}
    moving = sum(standing.moves for standing in standings.values())
    if moving >= limit or stopped_by(standings) is not None:
        return frozenset(again)
    waiting = (key for key, standing in standings.items() if standing.waits and not standing.moves)
    return frozenset(again.union(heapq.nsmallest(limit - moving, waiting)))


def stopped_by(standings: Mapping[Key, Standing]) -> Key | None:
    """The first InferenceModel that failed; None when none did."""
    return min((key for key, standing in standings.items() if standing.failed), default=None)


class Change(Enum):
    """What another pod template means for a Deployment."""

    NONE = auto()
    """It has it already."""
    FREE = auto()
    """It needs no turn: a user asked for it, or no pod is restarted by it."""
    OWN = auto()
    """The operator alone changes it."""


def change(live: Deployment, newest: Manifest) -> Change:
    """What the template of ``newest``, the Deployment that is wanted, means for the live one."""
    annotations = newest["metadata"]["annotations"]
    if live.template_hash == annotations[names.TEMPLATE_HASH_ANNOTATION]:
        return Change.NONE
    before, asked = live.pod_spec_hash, annotations[names.POD_SPEC_HASH_ANNOTATION]
    if newest["spec"].get("replicas", live.replicas) == 0 or (
        before != asked and deployments.same_form(before, asked)
    ):
        return Change.FREE
    return Change.OWN


def rolled_out(live: Deployment) -> bool:
    """Whether all pods of a Deployment are of its newest template, and have been available once.

    The rules are those of `kubectl rollout status` and of the Deployment controller, by which a
    rollout that was complete stays so when a pod is lost or added later.
    """
    status = live.status
    if not live.is_fresh or status.replicas > status.updated_replicas:
        return False
    progressing = status.condition("Progressing")
    if progressing is not None and progressing.reason == "NewReplicaSetAvailable":
        return True
    return min(status.updated_replicas, status.available_replicas) >= live.replicas


def failing(live: Deployment, pods: Iterable[Pod]) -> bool:
    """Whether there is a sign, fresh or not, that a Deployment's pods don't come up."""
    progressing = live.status.condition("Progressing")
    refused = live.status.condition("ReplicaFailure")
    return (
        (progressing is not None and progressing.status == "False")
        or (refused is not None and refused.status == "True")
        or any(pod.trouble in _FAILURES and not pod.terminating for pod in pods)
    )


def overdue(live: Deployment) -> Standing:
    """The standing of one that moves, and has been waited for in vain."""
    return SETTLED if live.template_update == UNWATCHED else Standing(moves=True, failed=True)


def standing(live: Deployment, pods: Iterable[Pod], *, failed: bool = False) -> Standing:
    """The standing by a Deployment alone: whether it moves by a change of the operator's own.

    Args:
        live: the Deployment.
        pods: those of its present template.
        failed: whether it had failed before; so it has until a fresh status says otherwise.
    """
    if live.template_update is None or live.replicas == 0 or rolled_out(live):
        return SETTLED
    if not live.is_fresh:
        return Standing(moves=True, failed=failed and live.template_update != UNWATCHED)
    broken = failing(live, pods)
    if live.template_update == UNWATCHED:
        return Standing(moves=not broken)
    return Standing(moves=True, failed=broken)
