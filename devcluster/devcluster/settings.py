"""What may be chosen about the cluster, and what is told of it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Settings:
    """What the caller may choose; kept with the cluster."""

    http_port: int = 80
    https_port: int = 443
    nodes: int = 1

    @property
    def several(self) -> bool:
        """Whether the nodes have networks and disks of their own."""
        return self.nodes > 1


@dataclass(frozen=True)
class Status:
    """The cluster as it is."""

    running: bool
    """Every program runs and the API server is ready."""
    programs: dict[str, int | None]
    """Process ids; None for one that should run and does not."""
    node_ready: bool
    """Every node is."""
    nodes: dict[str, bool]
    """Which of them are."""
    kubeconfig: str
    url: str
    ingress: str
    """Where the ingress controller answers HTTP, such as ``http://127.0.0.1:80``."""
    ingress_tls: str
    audit_log: str
    logs: str
    cache: str
