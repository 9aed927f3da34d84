"""Pods that were taken away: by whom, why, and which field helps.

Their successors are ordinary pods that start; nothing in those tells why they had to.
"""

from __future__ import annotations

import datetime
import re
from typing import TYPE_CHECKING, Final

import msgspec

from inferencemodel_operator import bounds

if TYPE_CHECKING:
    from collections.abc import Iterable

    from inferencemodel_operator.observe import wire
    from inferencemodel_operator.observe.objects import Pod

RECENT: Final = datetime.timedelta(minutes=10)
"""For so long a pod that was taken away explains why another one of its kind starts."""
WORDS: Final = 300
"""Bytes of the kubelet's words in a message."""

_LIMIT: Final = re.compile(r"exceeds the (total )?limit")
_DISK: Final = re.compile(r"ephemeral[- ](local )?storage|EmptyDir|nodefs|imagefs|DiskPressure")
_MEMORY: Final = re.compile(r"resource: memory|MemoryPressure|OutOfmemory")
_FEWER: Final = "keep fewer versions on it (spec.model.retainVersions)"

_TARGETS: Final = {
    "PreemptionByScheduler": (
        "was preempted by a pod of a higher priority",
        "raise spec.template.priorityClassName, or add nodes",
    ),
    "DeletionByTaintManager": (
        "had to leave its node for a taint",
        "nothing, if the node is ill; else tolerate the taint in spec.template.tolerations",
    ),
    "EvictionByEvictionAPI": (
        "was evicted by a request, as when a node is drained",
        "nothing, if it passes",
    ),
    "DeletionByPodGC": ("was on a node that is gone", "nothing; add nodes if it lasts"),
}
"""Reasons of the condition DisruptionTarget (`k8s.io/api/core/v1`): what happened, and the fix."""


class Disruption(msgspec.Struct, frozen=True):
    """Why a pod was taken away."""

    message: str
    """What has happened, and what to do."""
    at: datetime.datetime | None
    """When, by the clock of whoever took it."""
    evicted: bool = False
    """Whether its node did, for want of memory or disk."""


def read(status: wire.PodStatus) -> Disruption | None:
    """Why the pod was or is being taken away; None when nobody takes it but its owner."""
    target = next(
        (c for c in status.conditions if c.type == "DisruptionTarget" and c.status == "True"), None
    )
    at = target.last_transition_time if target else _end(status)
    if status.phase == "Failed" and status.reason:
        return Disruption(_by_kubelet(status), at, evicted=status.reason == "Evicted")
    if target is None:
        return None
    what, fix = _TARGETS.get(
        target.reason, (f"is taken away ({bounds.text(target.reason, WORDS)})", "nothing")
    )
    return Disruption(f"{what}; to do: {fix}", at)


def _by_kubelet(status: wire.PodStatus) -> str:
    words = bounds.text(status.message, WORDS).rstrip(". ")
    why = f"{bounds.text(status.reason, WORDS)}: {words}" if words else status.reason
    what = "was evicted by its node" if status.reason == "Evicted" else "was ended by its node"
    return f"{what} ({why}); to do: {_fix(f'{status.reason} {status.message}')}"


def _fix(text: str) -> str:
    if _DISK.search(text):
        if _LIMIT.search(text):
            return f"raise spec.server.resources.limits.ephemeral-storage, or {_FEWER}"
        return (
            "ask for its disk in spec.server.resources.requests.ephemeral-storage, so that it "
            f"comes to a node that has it, {_FEWER}, or give the nodes more disk"
        )
    if _MEMORY.search(text):
        return "ask for as much memory as it uses in spec.server.resources.requests.memory"
    if "shutdown" in text.lower():
        return "nothing, if the node comes back"
    return "see the node with `kubectl describe node`"


def _end(status: wire.PodStatus) -> datetime.datetime | None:
    ends = [
        container.state.terminated.finished_at
        for container in (*status.container_statuses, *status.init_container_statuses)
        if container.state.terminated and container.state.terminated.finished_at
    ]
    return max(ends, default=None)


def predecessor(pod: Pod, pods: Iterable[Pod], now: datetime.datetime) -> str | None:
    """Why the pod had to be started: what became of the last one that was taken away.

    Args:
        pod: that is not ready.
        pods: all of its InferenceModel, those that have ended among them.
        now: the time.
    """
    recent = [
        (other.disruption.at, other.name, other.disruption.message)
        for other in pods
        if other.disruption is not None
        and other.disruption.at is not None
        and other.terminating
        and other.template == pod.template
        and now - other.disruption.at < RECENT
    ]
    if not recent:
        return None
    _, name, message = max(recent)
    return f"pod {name} {message}"
