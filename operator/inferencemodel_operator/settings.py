"""What the person who installs the operator decides for all InferenceModels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

DEFAULT_POLLER_IMAGE: Final = "inferencemodel/poller:0.1.0"
DEFAULT_NAMESPACE: Final = "inferencemodel-system"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Settings of the pure builders.

    Those of the poller are part of the pod template, so changing one restarts the serving pods, pod
    by pod. Nothing else of the operator's own release is in there.
    """

    poller_image: str = DEFAULT_POLLER_IMAGE
    poller_image_pull_policy: str | None = None
    """Always, IfNotPresent, Never, or None for the cluster's own default."""
    namespace: str = DEFAULT_NAMESPACE
    """The operator's own, from which pollers are asked; part of no pod template."""
