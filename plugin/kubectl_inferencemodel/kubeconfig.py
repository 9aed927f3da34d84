"""Which API server, as whom and in which namespace: kubectl's files."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kubectl_inferencemodel import plain

if TYPE_CHECKING:
    from pathlib import Path

    from kubectl_inferencemodel.access import Access


def find(kubeconfig: Path | None, context: str | None) -> Access:
    """Read the kubeconfig as kubectl does; in a pod without one, its service account.

    Raises:
        ClusterError: there is no usable one.
    """
    found = plain.find(kubeconfig, context)
    if found is None:
        from kubectl_inferencemodel import client

        found = client.find(kubeconfig, context)
    return found
