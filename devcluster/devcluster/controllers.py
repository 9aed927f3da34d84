"""How the controllers and the scheduler run, and what the control plane needs beside them: pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from devcluster.certs import Certificate
from devcluster.processes import Program

if TYPE_CHECKING:
    from pathlib import Path

    from devcluster.controlplane import ControlPlane

CONTROLLER_MANAGER = "kube-controller-manager"
SCHEDULER = "kube-scheduler"

#: The users that the programs are to the API server; the names are Kubernetes' own.
USERS = (
    Certificate(CONTROLLER_MANAGER, "system:kube-controller-manager"),
    Certificate(SCHEDULER, "system:kube-scheduler"),
)


@dataclass(frozen=True)
class Controllers:
    """The controllers and the scheduler over a control plane."""

    plane: ControlPlane
    grace_seconds: int = 0
    """How long a node may be silent before it counts as lost; 0 leaves it to Kubernetes."""

    def configuration(self) -> dict[Path, str]:
        """Every file that the programs read, with its content."""
        certificates = self.plane.certificates
        return {
            self._kubeconfig(user.file): certificates.kubeconfig(user.file, self.plane.url)
            for user in USERS
        }

    def programs(self) -> list[Program]:
        """What runs beside etcd and the API server."""
        return [self._controller_manager(), self._scheduler()]

    def _controller_manager(self) -> Program:
        certificates = self.plane.certificates
        kubeconfig = self._kubeconfig(CONTROLLER_MANAGER)
        grace = [f"--node-monitor-grace-period={self.grace_seconds}s"] if self.grace_seconds else []
        return Program(
            CONTROLLER_MANAGER,
            (
                str(self.plane.programs[CONTROLLER_MANAGER]),
                f"--kubeconfig={kubeconfig}",
                f"--authentication-kubeconfig={kubeconfig}",
                f"--authorization-kubeconfig={kubeconfig}",
                "--bind-address=127.0.0.1",
                "--leader-elect=false",
                "--use-service-account-credentials=true",
                f"--service-account-private-key-file={certificates.service_accounts}",
                f"--root-ca-file={certificates.crt('ca')}",
                f"--cluster-signing-cert-file={certificates.crt('ca')}",
                f"--cluster-signing-key-file={certificates.key('ca')}",
                f"--flex-volume-plugin-dir={self.plane.state / 'kubelet-plugins'}",
                *grace,
            ),
            {},
            inputs=(kubeconfig,),
        )

    def _scheduler(self) -> Program:
        kubeconfig = self._kubeconfig(SCHEDULER)
        return Program(
            SCHEDULER,
            (
                str(self.plane.programs[SCHEDULER]),
                f"--kubeconfig={kubeconfig}",
                f"--authentication-kubeconfig={kubeconfig}",
                f"--authorization-kubeconfig={kubeconfig}",
                "--bind-address=127.0.0.1",
                "--leader-elect=false",
            ),
            {},
            inputs=(kubeconfig,),
        )

    def _kubeconfig(self, user: str) -> Path:
        return self.plane.state / "kubeconfigs" / user
