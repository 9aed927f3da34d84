"""Of which type the fields of a pod are that the operator itself reads; pure.

``spec.template.spec`` is preserved as it is written, so anything can be anywhere in it. What is
judged here is safe to read after that, in replicas and in the pod that rehearses a version; the
types of everything else are the API server's to judge.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from inferencemodel_operator.children import overlay
from inferencemodel_operator.children.overlay import Problem

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from inferencemodel_operator.children.manifest import Manifest

_CONTAINER: Final[Mapping[str, Any]] = {
    "name": str,
    "args": [str],
    "env": [{"name": str}],
    "lifecycle": {},
    "ports": [{"name": str, "containerPort": int, "protocol": str}],
    "volumeDevices": [{"devicePath": str}],
    "volumeMounts": [{"name": str, "mountPath": str}],
}
_POD: Final[Mapping[str, Any]] = {
    "containers": [_CONTAINER],
    "initContainers": [_CONTAINER],
    "volumes": [{"name": str}],
}
_WORDS: Final[Mapping[type, tuple[str, str]]] = {
    dict: ("it is no object", "write it as an object with fields"),
    list: ("it is no list", "write it as a list"),
    str: ("it is no text", "write it as text, in quotes where it looks like something else"),
    int: ("it is no whole number", "write it as a whole number, without quotes"),
}


def problems(spec: Manifest) -> list[Problem]:
    """The fields of a pod spec that are of another type than Kubernetes' own."""
    return list(_differing(spec, _POD, overlay.FIELD, ""))


def _differing(value: Any, form: Any, path: str, field: str) -> Iterator[Problem]:
    kind = form if isinstance(form, type) else dict if isinstance(form, dict) else list
    if not isinstance(value, kind) or isinstance(value, bool):
        yield Problem(path, *_WORDS[kind])
    elif isinstance(value, dict):
        for name, below in form.items():
            if name in value:
                yield from _differing(value[name], below, f"{path}.{name}", name)
    elif isinstance(value, list):
        for index, there in enumerate(value):
            yield from _differing(there, form[0], f"{path}{_step(field, there, index)}", "")


def _step(field: str, there: Any, index: int) -> str:
    keyed = field in overlay.KEYS and isinstance(there, dict)
    found = overlay.key(field, there) if keyed else None
    return f"[{index}]" if found is None else overlay.step("", found)
