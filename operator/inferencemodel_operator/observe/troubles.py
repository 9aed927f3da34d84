"""Why a pod does not come up, read from its status alone."""

from __future__ import annotations

import re
from enum import StrEnum
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from inferencemodel_operator.observe import wire


class Trouble(StrEnum):
    """Why a pod does not come up, as far as Kubernetes tells."""

    UNSCHEDULABLE = "Unschedulable"
    IMAGE_PULL_FAILED = "ImagePullFailed"
    CONTAINER_CONFIG_FAILED = "ContainerConfigFailed"
    POLLER_CRASHED = "PollerCrashed"
    SERVER_CRASHED = "ServerCrashed"


CRASHES: Final = 3
"""Restarts of a container that never got well after which it counts as crashing."""

_PULL_FAILED: Final = frozenset(
    {"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull"}
)
_CONFIG_FAILED: Final = frozenset(
    {"CreateContainerConfigError", "CreateContainerError", "RunContainerError"}
)
_UNNAMED: Final = re.compile(r"\d+/\d+ nodes are available: ")


def trouble(
    status: wire.PodStatus, poller: wire.ContainerStatus | None, server: wire.ContainerStatus | None
) -> tuple[Trouble | None, str]:
    """What keeps a pod that isn't ready from coming up, and a message that stays the same while
    it does, with what to do."""
    scheduled = next((c for c in status.conditions if c.type == "PodScheduled"), None)
    if scheduled is not None and scheduled.reason == "Unschedulable":
        return Trouble.UNSCHEDULABLE, (
            f"no node takes the pod: {_UNNAMED.sub('', scheduled.message)} "
            "Add nodes, or ask for less in spec.server.resources or spec.template"
        )
    for container in (poller, server):
        waiting = container.state.waiting if container else None
        if container is None or waiting is None:
            continue
        if waiting.reason in _PULL_FAILED:
            return Trouble.IMAGE_PULL_FAILED, (
                f"the image {container.image} of container {container.name} can't be pulled; "
                "check its name and tag, and that the nodes may pull it"
            )
        if waiting.reason in _CONFIG_FAILED:
            return Trouble.CONTAINER_CONFIG_FAILED, (
                f"container {container.name} can't be started: {waiting.message or waiting.reason}"
            )
    for container, crash in (
        (server, Trouble.SERVER_CRASHED),
        (poller, Trouble.POLLER_CRASHED),
    ):
        if container is not None and container.restart_count >= CRASHES:
            return crash, _crash(container)
    return None, ""


def _crash(container: wire.ContainerStatus) -> str:
    ended = container.last_state.terminated or container.state.terminated
    if ended is not None and ended.reason == "OOMKilled":
        what = "was killed for using more memory than its limit"
        fix = "raise spec.server.resources.limits.memory"
    else:
        what = f"ended with exit code {ended.exit_code}" if ended else "ended"
        fix = f"read why with `kubectl logs POD --container {container.name} --previous`"
    return f"container {container.name} {what}, again and again; {fix}"
