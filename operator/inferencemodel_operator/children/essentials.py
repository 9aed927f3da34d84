"""What holds a pod together, and so can't be changed by ``spec.template.spec``; pure.

Judged is the pod that comes out, not the overlay: whichever way it takes to a pod without the
model volume, that pod would not work. Where a pod would work but must not run in a namespace, as a
privileged one, the API server's own answer tells so.
"""

from __future__ import annotations

import posixpath
from typing import TYPE_CHECKING, Any, Final

from inferencemodel_operator import names
from inferencemodel_operator.children import form, overlay, pod, poller
from inferencemodel_operator.children.overlay import FIELD, HANDLERS, Problem

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Set

    from inferencemodel_operator.children.manifest import Manifest

SERVER: Final = names.SERVER_CONTAINER
POLLER: Final = names.POLLER_CONTAINER
LISTS: Final[Mapping[str, str]] = {"containers": SERVER, "initContainers": POLLER}
"""The lists of a pod's containers, and which of the operator's own is in each."""
SCRATCH: Final = "tmp"
"""The one volume of the operator's that may be another one: nothing of it is looked for."""

VARIABLES: Final = frozenset(
    {
        *poller.ASSIGNMENT,
        *("POD_NAME", "POD_NAMESPACE", "GOOGLE_APPLICATION_CREDENTIALS", "EXTRA_CA_FILE"),
    }
)
"""Of the poller, those that the operator sets itself."""
_LEAVE: Final = "leave it out"
_STORED: Final = {
    "models": "set spec.storage, which has what it can be made of",
    "model-cache": "set spec.storage.cache, which names the claim",
}
"""Volumes that only the poller writes, and what says which they are."""
_ACCOUNT: Final = (
    "the pods' account is a field of its own, as it gives access to the bucket",
    "set spec.source.serviceAccountName instead",
)
_POD: Final[Mapping[str, tuple[str, str]]] = {
    "serviceAccountName": _ACCOUNT,
    "serviceAccount": _ACCOUNT,
    "automountServiceAccountToken": (
        "it would put a token for the API server into containers that read what others have made",
        "leave it out, and mount a projected volume with a serviceAccountToken into the container "
        "that needs one",
    ),
    "restartPolicy": ("a Deployment's pods are always started again", _LEAVE),
    "activeDeadlineSeconds": ("a pod that serves has no end", _LEAVE),
    "ephemeralContainers": ("they are added to running pods alone", "use `kubectl debug`"),
    "hostNetwork": (
        "the pod's ports would be the node's: no second pod could start there, that of a rollout "
        "neither, and NetworkPolicies would not hold",
        "leave it out, and have a Service or an Ingress lead to the pods",
    ),
}
"""Fields of the pod that stay as they are, and why."""
_HARMLESS: Final[Mapping[str, Any]] = {"restartPolicy": "Always", "hostNetwork": False}
"""What says the same as nothing."""

_IMAGE: Final = (
    "the operator relies on what it can do",
    "change the operator's --poller-image",
)
_OWN: Final = ("it is the operator's, and the operator and the model server rely on it", _LEAVE)
_CONTAINER: Final[Mapping[str, Mapping[str, tuple[str, str]]]] = {
    SERVER: {
        "image": ("it is a field of its own", "set spec.server.image instead"),
        "command": ("it is a field of its own", "set spec.server.command instead"),
        "args": (
            "the operator's flags are in it, such as the ports and the model's place",
            "add flags in spec.server.args, which come last and prevail",
        ),
        "restartPolicy": _OWN,
    },
    POLLER: {
        "image": _IMAGE,
        "command": _OWN,
        "args": _OWN,
        "workingDir": _OWN,
        "readinessProbe": (
            "the operator and the poller count on it while a replica drains",
            "leave it out; spec.rollout.drain turns it on and off",
        ),
        "restartPolicy": ("as a native sidecar it runs beside the model server", _LEAVE),
    },
}
"""Fields of the operator's own containers that stay as they are, and why."""
_PROBES: Final[Mapping[str, Mapping[str, str]]] = {
    SERVER: {
        "readinessProbe": "no other path answers 200 just when a version can be served",
    },
    POLLER: {
        "startupProbe": "it holds the model server back until there is a version to serve",
        "livenessProbe": "it finds a poller that hangs",
    },
}
"""Probes whose question stays what it is; their timing may change."""


def problems(base: Manifest, merged: Manifest) -> list[Problem]:
    """What an overlay has changed of a pod spec that has to stay.

    Args:
        base: the operator's own pod spec.
        merged: the same with the overlay on top.
    """
    unreadable = form.problems(merged)
    if unreadable:
        return unreadable
    found: list[Problem] = [*_pod(base, merged), *_places(merged)]
    for field, name in LISTS.items():
        before = overlay.item(base.get(field), field, _named(name))
        after = overlay.item(merged.get(field), field, _named(name))
        if before is not None and after is not None:
            where = f"{FIELD}.{overlay.step(field, _named(name))}"
            found += _container(where, name, before, after)
            found += _mounts(where, before, after)
        elif before is not None:
            found.append(
                Problem(
                    f"{FIELD}.{overlay.step(field, _named(name))}",
                    "without this container nothing would be served",
                    "leave it where it is",
                )
            )
    return [*found, *_volumes(base, merged), *_shared(base, merged)]


def containers(spec: Manifest) -> Iterator[tuple[str, Manifest]]:
    """All containers of a pod, each with its path in an InferenceModel."""
    for field in LISTS:
        items = spec.get(field)
        for there in items if isinstance(items, list) else ():
            found = overlay.key(field, there)
            if found is not None:
                yield f"{FIELD}.{overlay.step(field, found)}", there


def _named(name: str) -> overlay.Key:
    return (("name", name),)


def _pod(base: Manifest, merged: Manifest) -> Iterator[Problem]:
    for field, (why, fix) in _POD.items():
        value = merged.get(field)
        if value not in (base.get(field), _HARMLESS.get(field, base.get(field))):
            yield Problem(f"{FIELD}.{field}", why, fix)
    grace, least = (
        merged.get("terminationGracePeriodSeconds"),
        base["terminationGracePeriodSeconds"],
    )
    if not isinstance(grace, int) or grace < least:
        yield Problem(
            f"{FIELD}.terminationGracePeriodSeconds",
            f"a pod that ends still serves for a while, for which it needs {least} s",
            f"set spec.drain.seconds instead, or give at least {least}",
        )


def _places(merged: Manifest) -> Iterator[Problem]:
    """The operator's containers where they are not theirs to be."""
    for field, own in LISTS.items():
        for other, name in LISTS.items():
            if name != own and overlay.item(merged.get(field), field, _named(name)) is not None:
                yield Problem(
                    f"{FIELD}.{overlay.step(field, _named(name))}",
                    f"{name} is one of the {other}",
                    f"write what is to be changed of it under {FIELD}.{other}, or call a container "
                    "of your own by another name",
                )


def _container(where: str, name: str, before: Manifest, after: Manifest) -> Iterator[Problem]:
    for field, (why, fix) in _CONTAINER[name].items():
        if after.get(field) != before.get(field):
            yield Problem(f"{where}.{field}", why, fix)
    for field, why in _PROBES[name].items():
        if _handler(after.get(field)) != _handler(before.get(field)):
            yield Problem(
                f"{where}.{field}",
                f"what it asks has to stay: {why}",
                "change its seconds and thresholds alone",
            )
    yield from _ports(where, before, after)
    if name == SERVER:
        yield from _server(where, before, after)
    else:
        yield from _environment(where, before, after)


def _server(where: str, before: Manifest, after: Manifest) -> Iterator[Problem]:
    if not isinstance(after.get("startupProbe"), dict):
        yield Problem(
            f"{where}.startupProbe",
            "without it the liveness probe would end a server that loads its first version",
            "change its seconds and thresholds alone",
        )
    if _hook(after) != _hook(before):
        yield Problem(
            f"{where}.lifecycle.preStop",
            "it lets requests end before the server does",
            "set spec.drain.seconds for more time; another container may have a hook of its own",
        )
    for amounts in ("requests", "limits"):
        if (_field(after, "resources", amounts) or {}) != (
            _field(before, "resources", amounts) or {}
        ):
            yield Problem(
                f"{where}.resources.{amounts}",
                "threads and the check of a version's memory follow from spec.server.resources",
                f"set spec.server.resources.{amounts} instead",
            )


def _hook(container: Manifest) -> Any:
    return _field(container, "lifecycle", "preStop")


def _handler(probe: Any) -> Any:
    """What a probe asks; None where there is none."""
    if not isinstance(probe, dict):
        return None
    return {name: value for name, value in probe.items() if name in HANDLERS}


def _field(value: Any, *path: str) -> Any:
    for name in path:
        value = value.get(name) if isinstance(value, dict) else None
    return value


def _ports(where: str, before: Manifest, after: Manifest) -> Iterator[Problem]:
    for port in before["ports"]:
        wanted = overlay.key("ports", port)
        if wanted is not None and overlay.item(after.get("ports"), "ports", wanted) != port:
            yield Problem(
                f"{where}.{overlay.step('ports', wanted)}",
                "the Services, the probes and the operator find the container by it",
                "leave it as it is; spec.service has the ports that clients see",
            )


def _environment(where: str, before: Manifest, after: Manifest) -> Iterator[Problem]:
    for variable in before.get("env", ()):
        if variable["name"] not in VARIABLES:
            continue
        wanted = _named(variable["name"])
        if overlay.item(after.get("env"), "env", wanted) != variable:
            yield Problem(
                f"{where}.{overlay.step('env', wanted)}",
                "the operator tells the poller by it what it is to do",
                _LEAVE,
            )


def _mounts(where: str, before: Manifest, after: Manifest) -> Iterator[Problem]:
    own = {mount["mountPath"]: mount for mount in before["volumeMounts"]}
    held = {path: mount for path, mount in own.items() if mount["name"] != SCRATCH}
    for path, mount in held.items():
        wanted = (("mountPath", path),)
        if overlay.item(after.get("volumeMounts"), "volumeMounts", wanted) != mount:
            yield Problem(
                f"{where}.{overlay.step('volumeMounts', wanted)}",
                f"volume {mount['name']} has to be there as it is",
                _LEAVE,
            )
    for field, name in (("volumeMounts", "mountPath"), ("volumeDevices", "devicePath")):
        for path in _paths(after.get(field), name):
            hidden = next((there for there in held if path not in own and _meet(path, there)), None)
            if hidden is not None:
                yield Problem(
                    f"{where}.{overlay.step(field, ((name, path),))}",
                    f"it would hide {hidden}, or a part of it, from the container",
                    f"mount it elsewhere: neither at {hidden} nor above or below",
                )


def _paths(items: Any, name: str) -> list[str]:
    given = [there.get(name) for there in items or () if isinstance(there, dict)]
    return [path for path in given if isinstance(path, str)]


def _meet(one: str, other: str) -> bool:
    """Whether one path is the other one, or leads there."""
    # normpath leaves two slashes at the beginning as they are.
    parts = [posixpath.normpath(f"/{path}").lstrip("/").split("/") for path in (one, other)]
    first, second = ([part for part in path if part] for path in parts)
    shorter = min(len(first), len(second))
    return first[:shorter] == second[:shorter]


def _volumes(base: Manifest, merged: Manifest) -> Iterator[Problem]:
    for volume in base["volumes"]:
        wanted = _named(volume["name"])
        after = overlay.item(merged.get("volumes"), "volumes", wanted)
        if after == volume or (volume["name"] == SCRATCH and after is not None):
            continue
        yield Problem(
            f"{FIELD}.{overlay.step('volumes', wanted)}",
            "the poller and the model server need this volume as it is",
            _STORED.get(
                volume["name"], "leave it out, or call a volume of your own by another name"
            ),
        )


def _shared(base: Manifest, merged: Manifest) -> Iterator[Problem]:
    """What other containers would take from the operator's: their ports, the model volume."""
    ports = {
        port["containerPort"]: there["name"]
        for _, there in containers(base)
        for port in there.get("ports", ())
    }
    words = {
        port["name"]: there["name"]
        for _, there in containers(base)
        for port in there.get("ports", ())
    }
    stored = {volume["name"] for volume in base["volumes"]} & _STORED.keys()
    for where, there in containers(merged):
        yield from _taken(where, there, ports, words)
        yield from _written(where, there, stored)


def _taken(
    where: str, container: Manifest, ports: Mapping[int, str], words: Mapping[str, str]
) -> Iterator[Problem]:
    """Ports that are another container's; its own are judged by themselves."""
    name = container["name"]
    for port in container.get("ports", ()):
        number, protocol = port.get("containerPort"), port.get("protocol")
        path = f"{where}.{overlay.step('ports', overlay.key('ports', port) or ())}"
        if ports.get(number, name) != name and protocol == "TCP":
            yield Problem(
                path,
                f"{ports[number]} listens there, and the containers of a pod share their ports",
                "let the container listen on another one",
            )
        elif words.get(port.get("name"), name) != name:
            yield Problem(
                f"{path}.name",
                "a Service would find this port instead of the operator's of that name",
                "give the port another name",
            )


def _written(where: str, container: Manifest, stored: Set[str]) -> Iterator[Problem]:
    """A mount by which somebody else than the poller could write what is served.

    ``stored``: the volumes of it, as a user's own may be called as the operator's would be.
    """
    given = container.get("volumeMounts")
    for mount in given if isinstance(given, list) else ():
        path = mount.get("mountPath")
        own = container.get("name") == POLLER and path in (pod.MODELS_DIR, pod.CACHE_DIR)
        if mount.get("name") in stored and mount.get("readOnly") is not True and not own:
            yield Problem(
                f"{where}.{overlay.step('volumeMounts', (('mountPath', path),))}",
                "only the poller may write into the volume of what is served",
                "add readOnly: true",
            )
