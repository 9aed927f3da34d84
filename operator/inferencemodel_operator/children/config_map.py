"""The ConfigMap ``NAME-versions``: what a new pod starts with, and what is quarantined."""

from __future__ import annotations

from typing import TYPE_CHECKING

from inferencemodel_operator import names
from inferencemodel_operator.children.manifest import Manifest, manifest

if TYPE_CHECKING:
    from inferencemodel_operator.record import VersionsRecord
    from inferencemodel_operator.spec import InferenceModel


def build(model: InferenceModel, record: VersionsRecord) -> Manifest:
    """The ConfigMap that holds the record."""
    return manifest(
        model,
        "v1",
        "ConfigMap",
        names.versions_config_map(model.name),
        {"data": record.to_data()},
    )
