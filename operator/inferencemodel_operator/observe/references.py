"""What a pod needs from its namespace, and which field of the InferenceModel asks for it."""

from __future__ import annotations

import re
from itertools import chain, islice
from typing import TYPE_CHECKING, Any, Final

import msgspec

from inferencemodel_operator import bounds, names
from inferencemodel_operator.observe import wire

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

SECRET: Final = "Secret"  # noqa: S105  a kind
CONFIG_MAP: Final = "ConfigMap"
CLAIM: Final = "PersistentVolumeClaim"

MOST: Final = 200
"""References of one pod that are remembered: the spec has room for 64 variables, and an injected
sidecar needs more."""

_VOLUMES: Final = {
    "model-source": "spec.source.secretRef",
    "warmup": "spec.model.warmup.configMap",
    "model-claim": "spec.model.storageUri",
    "model-cache": "spec.storage.cache.claimName",
    "models": "spec.storage.volumeClaimTemplate",
    "extra-cas": "spec.poller.extraCAs.configMap",
}
"""The pod's volumes that are somebody else's objects (`children.pod.volumes`), and who asks."""

_VARIABLES: Final = {
    names.POLLER_CONTAINER: "spec.poller.env",
    names.SERVER_CONTAINER: "spec.server.env",
}
"""The containers whose variables a user gives in a field of their own, and where."""

# pkg/kubelet/kubelet_pods.go, pkg/volume/{secret,configmap,util}, the scheduler's volume plugins.
_ABSENT: Final = re.compile(r'\b(secret|configmap|persistentvolumeclaim) "([^"]+)" not found')
_NO_KEY: Final = re.compile(r"couldn't find key (\S+) in (Secret|ConfigMap) (?:[^/\s]+/)?(\S+)")
_NO_FILE: Final = re.compile(
    r'for volume "([^"]+)" : references non-existent (secret|config) key: (\S+)'
)
_KINDS: Final = {"secret": SECRET, "configmap": CONFIG_MAP, "persistentvolumeclaim": CLAIM}


class Reference(msgspec.Struct, frozen=True):
    """One object that the pod can't start without."""

    kind: str
    name: str
    field: str
    """Path of the field of the InferenceModel."""
    volume: str = ""
    """The pod's volume; empty where a variable needs it."""
    key: str = ""
    """The key of a variable."""


def references(spec: Mapping[str, Any]) -> tuple[Reference, ...]:
    """Read what a pod's spec needs."""
    needs = msgspec.convert(spec, wire.Needs)
    return tuple(islice(chain(_of_volumes(needs), _of_variables(needs)), MOST))


def _of_variables(needs: wire.Needs) -> Iterator[Reference]:
    lists = {"initContainers": needs.init_containers, "containers": needs.containers}
    for name, container in ((name, one) for name, found in lists.items() for one in found):
        where = f"spec.template.spec.{name}[name={bounds.text(container.name, bounds.NAME)}]"
        typed = _VARIABLES.get(container.name)
        for variable in container.env:
            source, told = variable.value_from, bounds.text(variable.name, bounds.NAME)
            field = f"{where}.env[name={told}]" if typed is None else f"{typed}[{told}]"
            if source is None:
                continue
            if source.secret_key_ref is not None:
                ref = source.secret_key_ref
                yield Reference(SECRET, ref.name, field, key=ref.key)
            if source.config_map_key_ref is not None:
                ref = source.config_map_key_ref
                yield Reference(CONFIG_MAP, ref.name, field, key=ref.key)
        for whole in container.env_from:
            yield from _of_names(whole, f"{where}.envFrom")


def _of_names(found: wire.Names, field: str, volume: str = "") -> Iterator[Reference]:
    for kind, ref in (
        (SECRET, found.secret or found.secret_ref),
        (CONFIG_MAP, found.config_map or found.config_map_ref),
    ):
        if ref is not None:
            yield Reference(kind, ref.name, field, volume)


def _of_volumes(needs: wire.Needs) -> Iterator[Reference]:
    for volume in needs.volumes:
        field = _VOLUMES.get(volume.name, "")
        if not field:
            field = f"spec.template.spec.volumes[name={bounds.text(volume.name, bounds.NAME)}]"
        if volume.secret is not None:
            yield Reference(SECRET, volume.secret.secret_name, field, volume.name)
        if volume.config_map is not None:
            yield Reference(CONFIG_MAP, volume.config_map.name, field, volume.name)
        for source in volume.projected.sources if volume.projected else ():
            yield from _of_names(source, field, volume.name)
        if volume.persistent_volume_claim is not None:
            name = volume.persistent_volume_claim.claim_name
            yield Reference(CLAIM, name, field, volume.name)
        if volume.ephemeral is not None:
            # Its name is that of the pod and of the volume.
            yield Reference(CLAIM, "", field, volume.name)


def pull_secrets(spec: Mapping[str, Any]) -> list[str]:
    """The names of the Secrets that images are pulled with."""
    return [secret.name for secret in msgspec.convert(spec, wire.Needs).image_pull_secrets]


def claims(needs: tuple[Reference, ...]) -> str:
    """The fields that ask for claims, in words; empty where none does."""
    return " and ".join(dict.fromkeys(ref.field for ref in needs if ref.kind == CLAIM))


def explain(message: str, needs: tuple[Reference, ...]) -> str | None:
    """What is missing, who asks for it, and what to do; None when the message tells of nothing
    that is missing.

    Args:
        message: the kubelet's or the scheduler's words.
        needs: what the pod needs.
    """
    absent = _ABSENT.search(message)
    if absent is not None:
        kind, name = _KINDS[absent[1]], absent[2]
        asked = _fields(ref for ref in needs if (ref.kind, ref.name) == (kind, name))
        return f'{kind} "{name}" is not there; create it, or correct {asked}'
    without = _NO_KEY.search(message)
    if without is not None:
        key, kind, name = without.groups()
        asked = _fields(ref for ref in needs if (ref.kind, ref.name, ref.key) == (kind, name, key))
        return f'{kind} "{name}" has no key "{key}"; add it, or correct {asked}'
    file = _NO_FILE.search(message)
    if file is not None:
        volume, kind, key = file[1], SECRET if file[2] == "secret" else CONFIG_MAP, file[3]
        refs = [ref for ref in needs if (ref.volume, ref.kind) == (volume, kind)]
        if refs:
            which = " or ".join(dict.fromkeys(f'"{ref.name}"' for ref in refs))
            return f'{kind} {which} has no key "{key}"; add it, or correct {refs[0].field}'
    return None


def _fields(refs: Iterator[Reference]) -> str:
    return " and ".join(dict.fromkeys(ref.field for ref in refs)) or "the field that names it"
