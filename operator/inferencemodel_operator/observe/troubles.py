"""Why a pod does not come up, read from its status alone."""

from __future__ import annotations

import re
from enum import StrEnum
from typing import TYPE_CHECKING, Final

from inferencemodel_operator import bounds, names
from inferencemodel_operator.observe import last_words, references

if TYPE_CHECKING:
    from collections.abc import Mapping

    from inferencemodel_operator.observe import wire
    from inferencemodel_operator.observe.references import Reference


class Trouble(StrEnum):
    """Why a pod does not come up, as far as Kubernetes tells."""

    UNSCHEDULABLE = "Unschedulable"
    IMAGE_PULL_FAILED = "ImagePullFailed"
    CONTAINER_CONFIG_FAILED = "ContainerConfigFailed"
    POLLER_CRASHED = "PollerCrashed"
    SERVER_CRASHED = "ServerCrashed"
    CONTAINER_CRASHED = "ContainerCrashed"
    EVICTED = "Evicted"


CRASHED: Final = (Trouble.SERVER_CRASHED, Trouble.POLLER_CRASHED, Trouble.CONTAINER_CRASHED)
"""Troubles of a container that ends again and again."""
CRASHES: Final = 3
"""Restarts of a container that never got well after which it counts as crashing."""
BRIEF_SECONDS: Final = 60.0
"""A container that ended sooner hardly worked: that is told at its first restart."""
WORDS: Final = 300
"""Bytes of the words of others in a message."""

_PULL_FAILED: Final = frozenset(
    {
        "ErrImagePull",
        "ImagePullBackOff",
        "InvalidImageName",
        "ErrImageNeverPull",
        "ImageInspectError",
        "RegistryUnavailable",
        "SignatureValidationFailed",
    }
)
_CONFIG_FAILED: Final = frozenset(
    {
        "CreateContainerConfigError",
        "CreateContainerError",
        "PreCreateHookError",
        "PreStartHookError",
        "PostStartHookError",
        "RunContainerError",
    }
)
_NOT_STARTED: Final = frozenset({"StartError", "ContainerCannotRun"})
"""Reasons of a container that ended before its program began."""
_IMAGES: Final = {
    names.SERVER_CONTAINER: "spec.server.image",
    names.POLLER_CONTAINER: "the operator's --poller-image",
}
"""Where a container's image is said."""
_UNNAMED: Final = re.compile(r"\d+/\d+ nodes are available: ")
_UNBOUND: Final = re.compile(
    r"PersistentVolumeClaim|persistentvolumeclaim|persistent volumes?|volume node affinity"
)
"""The scheduler's words about claims that no volume is there for, or none that this pod can use."""
_PREEMPTION: Final = re.compile(r"\s*preemption: .*", re.DOTALL)


class Status:
    """A pod's status, and what its spec needs where that is asked for."""

    def __init__(self, status: wire.PodStatus, spec: Mapping[str, object]) -> None:
        """Look at a pod.

        Args:
            status: the pod's.
            spec: the pod's, as the API server gives it.
        """
        self.status = status
        self._spec = spec
        self.poller = _container(status.init_container_statuses, names.POLLER_CONTAINER)
        self.server = _container(status.container_statuses, names.SERVER_CONTAINER)
        self.others = tuple(
            container
            for container in (*status.init_container_statuses, *status.container_statuses)
            if container.name not in (names.POLLER_CONTAINER, names.SERVER_CONTAINER)
        )
        """Those of ``spec.template.spec``, and what a webhook has put in."""

    @property
    def needs(self) -> tuple[Reference, ...]:
        """What it can't start without."""
        return references.references(self._spec)

    @property
    def pull_secrets(self) -> str:
        """The Secrets that images are pulled with, in words."""
        secrets = references.pull_secrets(self._spec)
        return f"with {' and '.join(secrets)} (imagePullSecrets)" if secrets else "without a Secret"


def trouble(pod: Status) -> tuple[Trouble | None, str]:
    """What keeps a pod that isn't ready from coming up, and a message that stays the same while
    it does, with what to do."""
    for judgement in (_unscheduled, _waiting, _crashed):
        found, message = judgement(pod)
        if found is not None:
            return found, message
    return None, ""


def is_hanging(pod: Status) -> bool:
    """Whether it has a node, and none of its containers was ever started or refused.

    A volume that can't be mounted, or a network that is not there, shows in nothing else but
    Events.
    """
    status = pod.status
    scheduled = next((c for c in status.conditions if c.type == "PodScheduled"), None)
    if status.phase != "Pending" or scheduled is None or scheduled.status != "True":
        return False
    containers = [pod.poller, *pod.others]
    return all(_never_started(container) for container in containers if container is not None)


def behind_poller(pod: Status) -> str:
    """An ordinary container, not the operator's, that starts when the running poller is done.

    A mesh's proxy may be one: then the poller waits for the network that it would give.
    """
    if pod.poller is None or pod.poller.state.running is None:
        return ""
    waiting = (
        container.name
        for container in pod.status.container_statuses
        if container in pod.others and _never_started(container)
    )
    return bounds.text(next(waiting, ""), bounds.NAME)


def _never_started(container: wire.ContainerStatus) -> bool:
    return (
        container.state.waiting is not None
        and container.state.waiting.reason in ("ContainerCreating", "PodInitializing")
        and container.last_state.terminated is None
    )


def _unscheduled(pod: Status) -> tuple[Trouble | None, str]:
    scheduled = next((c for c in pod.status.conditions if c.type == "PodScheduled"), None)
    if scheduled is None or scheduled.status == "True":
        return None, ""
    if scheduled.reason == "SchedulingGated":
        return Trouble.UNSCHEDULABLE, (
            "the pod waits for its scheduling gates; whoever has set them "
            "(a queue such as Kueue, say) takes them away when it is the pod's turn"
        )
    if scheduled.reason != "Unschedulable":
        return None, ""
    missing = references.explain(scheduled.message, pod.needs)
    if missing is not None:
        return Trouble.UNSCHEDULABLE, f"no node takes the pod: {missing}"
    why = _PREEMPTION.sub("", _UNNAMED.sub("", scheduled.message))
    fix = "Add nodes, or ask for less in spec.server.resources or spec.template"
    asked = references.claims(pod.needs)
    if asked and _UNBOUND.search(why):
        fix = (
            "See why with `kubectl describe pvc` (a StorageClass that is not there, say, or no "
            f"volume that fits); asked for by {asked}"
        )
    return Trouble.UNSCHEDULABLE, f"no node takes the pod: {bounds.text(why, WORDS)} {fix}"


def _waiting(pod: Status) -> tuple[Trouble | None, str]:
    for container in (pod.poller, pod.server, *pod.others):
        waiting = container.state.waiting if container else None
        if container is None or waiting is None:
            continue
        if waiting.reason in _PULL_FAILED:
            return Trouble.IMAGE_PULL_FAILED, _unpulled(pod, container, waiting)
        if waiting.reason in _CONFIG_FAILED:
            why = references.explain(waiting.message, pod.needs) or bounds.text(
                waiting.message or waiting.reason, WORDS
            )
            return Trouble.CONTAINER_CONFIG_FAILED, (
                f"container {container.name} can't be started: {why}"
            )
    return None, ""


def _unpulled(pod: Status, container: wire.ContainerStatus, waiting: wire.Waiting) -> str:
    field = _IMAGES.get(container.name, "spec.template.spec, or where the container comes from")
    if waiting.reason == "ErrImageNeverPull":
        fix = f"load it on the nodes, or let {field} be pulled (imagePullPolicy)"
    elif waiting.reason == "InvalidImageName":
        fix = f"correct {field}"
    else:
        fix = (
            f"check its name and tag in {field}, and that the nodes may pull it: it was tried "
            f"{pod.pull_secrets}, and spec.template.imagePullSecrets gives others"
        )
    return f"the image {container.image} of container {container.name} can't be pulled; {fix}"


def _crashed(pod: Status) -> tuple[Trouble | None, str]:
    for container, crash in (
        (pod.server, Trouble.SERVER_CRASHED),
        (pod.poller, Trouble.POLLER_CRASHED),
        *((container, Trouble.CONTAINER_CRASHED) for container in pod.others),
    ):
        if container is not None and _is_crashing(pod.status, container):
            return crash, _crash(pod, container)
    return None, ""


def _is_crashing(status: wire.PodStatus, container: wire.ContainerStatus) -> bool:
    waiting, last = container.state.waiting, _end(container)
    ended = container.state.terminated
    if _got_well(status, container) or (ended is not None and ended.exit_code == 0):
        return False
    return (
        container.restart_count >= CRASHES
        or (waiting is not None and waiting.reason == "CrashLoopBackOff")
        or (last is not None and (last.reason in _NOT_STARTED or _is_repeated(container, last)))
    )


def _got_well(status: wire.PodStatus, container: wire.ContainerStatus) -> bool:
    """Whether the pod was ready since the container was started last."""
    ready = next((c for c in status.conditions if c.type == "Ready"), None)
    running = container.state.running
    if ready is None or ready.last_transition_time is None:
        return False
    if running is None or running.started_at is None:
        return False
    return running.started_at < ready.last_transition_time


def _is_repeated(container: wire.ContainerStatus, last: wire.Terminated) -> bool:
    """Whether the kubelet has started a container again that had hardly worked."""
    if container.restart_count == 0 or last.started_at is None or last.finished_at is None:
        return False
    return (last.finished_at - last.started_at).total_seconds() < BRIEF_SECONDS


def _end(container: wire.ContainerStatus) -> wire.Terminated | None:
    return container.last_state.terminated or container.state.terminated


def _crash(pod: Status, container: wire.ContainerStatus) -> str:
    last = _end(container)
    name = container.name
    if last is None:
        what = "ended again and again"
    elif last.reason == "OOMKilled":
        what = "was killed for using more memory than its limit"
    elif last.reason in _NOT_STARTED:
        what = f"can't be started: {bounds.text(last.message or last.reason, WORDS)}"
    else:
        what = f"ended with exit code {last.exit_code}{_words(last.message)}"
    is_other = container in pod.others
    fix = _fix_of_other(pod, container, last) if is_other else _fix(name, last)
    return f"container {name} {what}; {fix}"


def _words(log: str) -> str:
    if last_words.is_usage(log):
        return " after a list of its flags, as it does when it can't read the value of one"
    line = last_words.telling(log)
    return f', its last words: "{line}"' if line else ""


def _fix(name: str, last: wire.Terminated | None) -> str:
    log = _LOG.format(name)
    if name == names.POLLER_CONTAINER:
        if last is not None and last.reason == "OOMKilled":
            return "raise spec.poller.resources.limits.memory"
        if last is not None and last.reason in _NOT_STARTED:
            return f"correct {_IMAGES[name]}"
        return f"read more with {log}"
    if last is not None and last.reason == "OOMKilled":
        return "raise spec.server.resources.limits.memory"
    if last is not None and last.reason in _NOT_STARTED:
        return "correct spec.server.command or spec.server.image"
    if last is not None and last_words.is_usage(last.message):
        return f"correct spec.server.args; {log} says which at its beginning"
    return f"correct spec.server where it says so; read more with {log}"


_LOG: Final = "`kubectl logs POD --container {} --previous`"


def _fix_of_other(
    pod: Status, container: wire.ContainerStatus, last: wire.Terminated | None
) -> str:
    is_init = container in pod.status.init_container_statuses
    field = f"{'initContainers' if is_init else 'containers'}[name={container.name}]"
    where = f"spec.template.spec.{field}, or where the container comes from"
    if last is not None and last.reason == "OOMKilled":
        return f"raise resources.limits.memory of {where}"
    if last is not None and last.reason in _NOT_STARTED:
        return f"correct command or image of {where}"
    return f"read more with {_LOG.format(container.name)}"


def _container(
    statuses: tuple[wire.ContainerStatus, ...], name: str
) -> wire.ContainerStatus | None:
    return next((status for status in statuses if status.name == name), None)
