"""Operators that share a cluster: what each one serves, and who serves what two of them would.

A Lease says on itself what its operator serves. Of two operators that would serve the same
InferenceModel, the one whose Lease is the older one does, and the other leaves it alone until that
Lease isn't renewed any more: as with replicas, whoever has no Lease writes nothing.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any, Final

import msgspec

from inferencemodel_operator import bounds, names, selectors

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

NAMESPACES_ANNOTATION: Final = f"{names.GROUP}/namespaces"
SELECTOR_ANNOTATION: Final = f"{names.GROUP}/selector"
_YOUNGEST: Final = "~"
"""Sorts behind every time."""


class Scope(msgspec.Struct, frozen=True):
    """Which InferenceModels an operator serves."""

    namespaces: tuple[str, ...] = ()
    """None of them for all."""
    selector: str = ""

    def has(self, namespace: str, labels: Mapping[str, str]) -> bool:
        """Whether an InferenceModel is among them.

        Raises:
            ValueError: the selector can't be read.
        """
        if self.namespaces and namespace not in self.namespaces:
            return False
        return all(r.holds(labels) for r in selectors.parse(self.selector))

    def __str__(self) -> str:
        where = ", ".join(self.namespaces) or "all namespaces"
        return f"{self.selector or 'all InferenceModels'} in {where}"


def lease_name(selector: str | None) -> str:
    """The Lease of operators with this selector: those with another one don't stand by for them."""
    if selector is None:
        return names.FIELD_MANAGER
    return f"{names.FIELD_MANAGER}-{hashlib.sha256(selector.encode()).hexdigest()[:8]}"


def metadata(scope: Scope) -> dict[str, dict[str, str]]:
    """What a Lease says of its operator."""
    return {
        "labels": {names.MANAGED_BY_LABEL: names.FIELD_MANAGER},
        "annotations": {
            NAMESPACES_ANNOTATION: ",".join(scope.namespaces),
            SELECTOR_ANNOTATION: scope.selector,
        },
    }


class Lease(msgspec.Struct, frozen=True):
    """An operator, as its Lease tells."""

    name: str
    created: str
    version: str
    holder: str
    scope: Scope

    @property
    def seniority(self) -> tuple[str, str]:
        """The smaller one serves what both would."""
        return self.created or _YOUNGEST, self.name


def lease(obj: Mapping[str, Any]) -> Lease | None:
    """Read a Lease; None when it is not one of an operator's that tells what it serves."""
    meta = obj["metadata"]
    annotations = meta.get("annotations") or {}
    try:
        selector = str(annotations[SELECTOR_ANNOTATION])
        selectors.check(selector)
        listed = str(annotations[NAMESPACES_ANNOTATION])
    except (KeyError, ValueError):
        return None
    return Lease(
        name=bounds.text(meta["name"], bounds.NAME),
        created=str(meta.get("creationTimestamp") or ""),
        version=str(meta["resourceVersion"]),
        holder=str((obj.get("spec") or {}).get("holderIdentity") or ""),
        scope=Scope(tuple(filter(None, listed.split(","))), selector),
    )


def others(
    name: str, before: Mapping[str, Lease], now: Iterable[Lease]
) -> tuple[tuple[Lease, ...], tuple[Lease, ...]]:
    """The other operators that run: those that are served first, and those that come after.

    Args:
        name: of this operator's Lease.
        before: all Leases by name, as they were longer ago than one lasts.
        now: all Leases.
    """
    by_name = {one.name: one for one in now}
    own = by_name.get(name)
    seniority = own.seniority if own else (_YOUNGEST, name)
    running = [
        one
        for one in by_name.values()
        if one.name != name and one.holder and one.version != _version(before, one.name)
    ]
    first = sorted((o for o in running if o.seniority < seniority), key=lambda o: o.seniority)
    after = sorted((o for o in running if o.seniority > seniority), key=lambda o: o.seniority)
    return tuple(first), tuple(after)


def _version(leases: Mapping[str, Lease], name: str) -> str:
    return leases[name].version if name in leases else ""


def covering(operators: Sequence[Lease], namespace: str, labels: Mapping[str, str]) -> Lease | None:
    """The first of the operators that serves an InferenceModel."""
    return next((one for one in operators if one.scope.has(namespace, labels)), None)
