"""Where in an InferenceModel a field of its pods comes from; pure.

The API server counts the items of a pod's lists, in which the operator's and a user's stand side
by side: what it says of ``spec.containers[1].image`` is said of ``spec.template.spec.containers
[name=logger].image``, or of the typed field that the value comes from.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from inferencemodel_operator import names
from inferencemodel_operator.children import overlay
from inferencemodel_operator.children.essentials import LISTS
from inferencemodel_operator.children.overlay import FIELD

if TYPE_CHECKING:
    from collections.abc import Mapping

    from inferencemodel_operator.children.manifest import Manifest

_PATH: Final = re.compile(
    r"(?<![\w.\]])(?:[A-Z]\w+\.)?(?P<path>spec(?:\.[A-Za-z]\w*|\[[^\[\]\s]+\])+)"
)
"""A field of a pod, as the API server names it; behind its type where it can't be decoded."""
_STEP: Final = re.compile(r"\.(\w+)|\[([^\[\]]+)\]")
_SAID: Final = re.compile(r"\b(containers?|volumes?) ((?:\"[^\"]+\"(?:, )?)+)")
"""How Pod Security names what it doesn't like."""
_SET: Final = re.compile(r"\(((?:host[A-Z]\w+=true(?:, )?)+)\)")
_TYPED: Final[Mapping[str, str]] = {
    "serviceAccountName": "spec.source.serviceAccountName",
    **{
        name: f"spec.template.{name}"
        for name in (
            "affinity",
            "imagePullSecrets",
            "nodeSelector",
            "priorityClassName",
            "tolerations",
            "topologySpreadConstraints",
        )
    },
}
"""Fields of a pod that are typed ones of an InferenceModel."""
_TYPED_OF_SERVER: Final = ("args", "command", "env", "image", "imagePullPolicy", "resources")


def translated(text: str, pod: Manifest, given: Mapping[str, Any], *, prefix: str = "") -> str:
    """What the API server says of a pod, with the fields of the InferenceModel.

    Args:
        text: its words.
        pod: the pod's spec.
        given: ``spec.template.spec``.
        prefix: where the pod's spec is in what was sent, such as ``spec.template.``.
    """

    def path(found: re.Match[str]) -> str:
        whole = found["path"]
        if prefix and not whole.startswith(f"{prefix}spec"):
            return found[0]
        return field(whole[len(prefix) + len("spec") :], pod, given)

    def said(found: re.Match[str]) -> str:
        fields = LISTS if found[1].startswith("container") else ("volumes",)
        quoted = re.sub(
            '"([^"]+)"', lambda one: f"{one[0]}{_whereabouts(one[1], fields, given)}", found[2]
        )
        return f"{found[1]} {quoted}"

    def switched(found: re.Match[str]) -> str:
        return f"({', '.join(f'{FIELD}.{one}' for one in found[1].split(', '))})"

    return _SET.sub(switched, _SAID.sub(said, _PATH.sub(path, text)))


def field(path: str, pod: Manifest, given: Mapping[str, Any]) -> str:
    """The field of an InferenceModel that a field of its pods comes from.

    Args:
        path: below the pod's spec, such as ``.containers[1].image``.
        pod: the pod's spec.
        given: ``spec.template.spec``.
    """
    words: list[str] = []
    live: Any = pod
    user: Any = given
    name = container = ""
    is_given = False
    for found in _STEP.finditer(path):
        if found[1]:
            name = found[1]
            words.append(f".{name}")
            live, user = (_below(there, name) for there in (live, user))
            continue
        listed = isinstance(user, list) and name not in overlay.KEYS
        live, user, word = _item(live, user, name, found[2])
        words.append(word)
        if name in LISTS and isinstance(live, dict):
            container = str(live.get("name", ""))
        else:
            # What an item lacks is its writer's to add, and a list without keys is one's alone.
            is_given |= listed or user is not None
    is_given |= user is not None or container not in ("", *LISTS.values())
    typed = None if is_given else _typed(words, container)
    return typed or FIELD + "".join(words)


def _below(value: Any, name: str) -> Any:
    return value.get(name) if isinstance(value, dict) else None


def _item(live: Any, user: Any, name: str, step: str) -> tuple[Any, Any, str]:
    """An item of a list, what a user says of it, and how it is called; or a map's value."""
    if not step.isdecimal() or not isinstance(live, list) or int(step) >= len(live):
        return _below(live, step), _below(user, step), f"[{step}]"
    there = live[int(step)]
    key = overlay.key(name, there) if name in overlay.KEYS and isinstance(there, dict) else None
    if key is not None:
        return there, overlay.item(user, name, key), overlay.step("", key)
    own = user[int(step)] if isinstance(user, list) and int(step) < len(user) else None
    return there, own, f"[{step}]"


def _typed(words: list[str], container: str) -> str | None:
    first = words[0][1:] if words else ""
    if first in _TYPED:
        return _TYPED[first] + "".join(words[1:])
    of_server = len(words) > 2 and words[2][1:] in _TYPED_OF_SERVER
    if container == names.SERVER_CONTAINER and of_server:
        return "spec.server" + "".join(words[2:])
    return None


def _whereabouts(name: str, fields: Any, given: Mapping[str, Any]) -> str:
    for there in fields:
        key: overlay.Key = (("name", name),)
        if overlay.item(given.get(there), there, key) is not None:
            return f" ({FIELD}.{overlay.step(there, key)})"
    return ""
