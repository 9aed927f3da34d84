"""Environment variables of a container, as the spec gives them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from inferencemodel_operator.children.manifest import Manifest, present

if TYPE_CHECKING:
    from collections.abc import Iterable

    from inferencemodel_operator.spec import EnvVar, KeyRef


def variables(given: Iterable[EnvVar]) -> list[Manifest]:
    """Those of a container."""
    return [_variable(variable) for variable in given]


def _variable(variable: EnvVar) -> Manifest:
    source = variable.value_from
    return present(
        name=variable.name,
        value=variable.value,
        valueFrom=source
        and present(
            secretKeyRef=source.secret_key_ref and _key(source.secret_key_ref),
            configMapKeyRef=source.config_map_key_ref and _key(source.config_map_key_ref),
        ),
    )


def _key(ref: KeyRef) -> Manifest:
    return {"name": ref.name, "key": ref.key, **({"optional": True} if ref.optional else {})}
