"""The operator's own service account, with just the rights that an install gives it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.kubectl import Kubectl
    from tests.support.rendering import Objects, Programs

NAME = "inferencemodel-operator"


def installed(kubectl: Kubectl, programs: Programs, *namespaces: str) -> Objects:
    """Install account and Roles as the chart does for these namespaces, but no operator.

    The account is in the namespace that ``kubectl`` is for.

    Returns:
        All that the chart would install.
    """
    assert kubectl.namespace
    chart = programs.chart(
        f"namespaces={{{','.join(namespaces)}}}", "crds.install=false", namespace=kubectl.namespace
    )
    for (kind, namespace, _), obj in chart.items():
        if kind in {"ServiceAccount", "Role", "RoleBinding"}:
            kubectl.in_namespace(namespace).apply(obj)
    return chart


def login(kubectl: Kubectl, directory: Path) -> Kubectl:
    """Be the operator."""
    return kubectl.as_service_account(NAME, directory / "kubeconfig")
