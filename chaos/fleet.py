"""The InferenceModels that faults are tried on, and their versions; pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from chaos.plan import Quality
from demo.cluster import VERSION
from tests.support import savedmodels
from tests.support.golden import recorded

NAMESPACE = "chaos"
IMAGE = f"inferencemodel/development-model-server:{VERSION}"
CLAIM = "chaos-versions"
CACHE_CLAIM = "chaos-cache"
OFFSETS = (2, 3)
DRAIN_SECONDS = 20
INPUT = 1.0


@dataclass(frozen=True)
class Model:
    """One InferenceModel: its store's scheme, its replicas, and what else its spec says."""

    name: str
    scheme: str
    replicas: int
    rollout: dict[str, Any] = field(default_factory=dict)
    notified: bool = False
    cached: bool = False
    scaled_to: int = 0
    """The most replicas of one that an autoscaler scales."""

    @property
    def host(self) -> str:
        """The host name of its Ingress."""
        return f"{self.name}.{NAMESPACE}.example.com"

    @property
    def subscription(self) -> str:
        """Of its notifications."""
        return f"projects/development/subscriptions/chaos-{self.name}"


_REHEARSED = {"rehearsal": {"enabled": True, "deadline": "60s", "onUnschedulable": "Skip"}}

FLEET = (
    Model("gs-single", "gs", 1),
    Model("gs-notified", "gs", 2, notified=True),
    Model(
        "gs-steps",
        "gs",
        5,
        {"steps": [{"replicas": 1, "pause": {"duration": "3s"}}, {"replicas": "50%"}]},
    ),
    Model("gs-rehearsed", "gs", 2, _REHEARSED),
    Model("gs-scaled", "gs", 1, scaled_to=3),
    Model("gs-cached", "gs", 2, cached=True),
    Model(
        "s3-waves",
        "s3",
        3,
        {"steps": [{"replicas": 1}, {"replicas": 2}], "bake": "5s"},
    ),
    Model("s3-drained", "s3", 2, {"drain": True}),
    Model("az-pair", "az", 2),
    Model("az-rehearsed", "az", 1, _REHEARSED),
    Model("web-single", "http", 1),
    Model("pvc-pair", "pvc", 2),
)


def manifest(model: Model, source: dict[str, Any], uri: str) -> dict[str, Any]:
    """The InferenceModel; ``source`` is how its store is reached."""
    spec: dict[str, Any] = {
        "model": {"storageUri": uri},
        "source": {"pollInterval": "5s", **source},
        "server": {
            "image": IMAGE,
            "resources": {"requests": {"cpu": "10m", "memory": "64Mi"}},
        },
        "poller": {"resources": {"requests": {"cpu": "5m", "memory": "48Mi"}}},
        "replicas": model.replicas,
        "drain": {"seconds": DRAIN_SECONDS},
        "ingress": {"className": "traefik", "host": model.host},
    }
    if model.rollout:
        spec["rollout"] = {"deadline": "90s", **model.rollout}
    if model.cached:
        spec["storage"] = {"cache": {"claimName": CACHE_CLAIM, "maxSize": "100Mi"}}
    if model.scaled_to:
        spec["autoscaling"] = {
            "minReplicas": model.replicas,
            "maxReplicas": model.scaled_to,
            "metrics": [
                {
                    "type": "Resource",
                    "resource": {
                        "name": "cpu",
                        "target": {"type": "AverageValue", "averageValue": "400m"},
                    },
                }
            ],
        }
        del spec["replicas"]
    return {
        "apiVersion": "inferencemodel.dev/v1alpha1",
        "kind": "InferenceModel",
        "metadata": {"name": model.name, "namespace": NAMESPACE},
        "spec": spec,
    }


def offset(version: int) -> int:
    """Which of the models a version of this number is: an answer tells whose it is."""
    return OFFSETS[version % len(OFFSETS)]


def answer(version: int) -> float:
    """What a version answers to ``INPUT``."""
    return 0.5 * INPUT + offset(version)


def entries(
    exports: dict[int, dict[str, bytes]], unsigned: dict[str, bytes], version: int, quality: Quality
) -> dict[str, bytes]:
    """The files of a version.

    Args:
        exports: the files of the good SavedModels, by their offset.
        unsigned: those of one without a signature.
        version: its number.
        quality: what it is like. Of a damaged one these are not all.
    """
    good = exports[offset(version)]
    if quality is Quality.UNLOADABLE:
        return savedmodels.unloadable(good)
    if quality is Quality.WRONG:
        return {**good, **recorded(answer(version), answer(version) + 7)}
    if quality is Quality.UNSIGNED:
        return unsigned
    if quality is Quality.DAMAGED:
        return {name: content for name, content in good.items() if "variables" not in name}
    return {**good, **recorded(answer(version))}
