"""What the person who installs the operator decides."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from inferencemodel_operator.values import Share

if TYPE_CHECKING:
    from pathlib import Path

DEFAULT_POLLER_IMAGE: Final = "inferencemodel/poller:0.1.0"
DEFAULT_NAMESPACE: Final = "inferencemodel-system"
DEFAULT_MAX_RESTARTS: Final = Share(5)


@dataclass(frozen=True, slots=True, kw_only=True)
class Upstream:
    """A Service of some namespace, and one of its ports."""

    namespace: str
    service: str
    port: int


DEFAULT_INTERCEPTOR: Final = Upstream(
    namespace="keda", service="keda-add-ons-http-interceptor-proxy", port=8080
)
DEFAULT_SCALER: Final = Upstream(
    namespace="keda", service="keda-add-ons-http-external-scaler", port=9090
)
DEFAULT_CLUSTER_DOMAIN: Final = "cluster.local"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Settings of the pure builders, the same for all InferenceModels.

    Those of the poller are part of the pod template, so changing one restarts the serving pods, pod
    by pod, of some InferenceModels at a time (`Options.max_restarts`). Nothing else of the
    operator's own release is in there.
    """

    poller_image: str = DEFAULT_POLLER_IMAGE
    poller_image_pull_policy: str | None = None
    """Always, IfNotPresent, Never, or None for the cluster's own default."""
    namespace: str = DEFAULT_NAMESPACE
    """The operator's own, from which pollers are asked; part of no pod template."""
    interceptor: Upstream = DEFAULT_INTERCEPTOR
    """The proxy of KEDA's HTTP add-on."""
    scaler: Upstream = DEFAULT_SCALER
    """Where that add-on tells KEDA what it has counted."""
    cluster_domain: str = DEFAULT_CLUSTER_DOMAIN
    """Behind the name of every Service."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """The command line, parsed: how one process runs, and the settings for its InferenceModels."""

    kubeconfig: Path | None
    namespaces: tuple[str, ...]
    """None of them for all."""
    selector: str | None
    """Of the labels of the InferenceModels that are served; None for all."""
    poller_access: str
    """auto, direct or proxy."""
    http_port: int
    """For health and metrics; 0 for none."""
    lease: tuple[str, str] | None
    """Namespace and name of the Lease that the replicas share; None for a single one."""
    max_restarts: Share = DEFAULT_MAX_RESTARTS
    """How many InferenceModels may restart their pods at a time for the operator's own sake."""
    settings: Settings
