"""How the controllers and the scheduler run, and what the control plane needs beside them: pure."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from devcluster.certs import Certificate
from devcluster.node import PROXY, PROXY_USER, kube_proxy, proxy_configuration
from devcluster.processes import Program

if TYPE_CHECKING:
    from pathlib import Path

    from devcluster.controlplane import ControlPlane

CONTROLLER_MANAGER = "kube-controller-manager"
SCHEDULER = "kube-scheduler"

#: Seconds that one of several nodes may be silent before it counts as lost.
LOST_SECONDS = 20
#: What the control plane's side is called where a node's name is asked for.
_NAME = "control-plane"

#: The users that the programs are to the API server; the names are Kubernetes' own.
USERS = (
    Certificate(CONTROLLER_MANAGER, "system:kube-controller-manager"),
    Certificate(SCHEDULER, "system:kube-scheduler"),
)


@dataclass(frozen=True)
class Controllers:
    """The controllers and the scheduler over a control plane."""

    plane: ControlPlane
    several: bool = False
    """Whether there are nodes with networks of their own. Then the control plane's side reaches
    Services by a kube-proxy of its own, and a silent node counts as lost sooner."""

    def configuration(self) -> dict[Path, str]:
        """Every file that the programs read, with its content."""
        certificates = self.plane.certificates
        users = (*USERS, PROXY_USER) if self.several else USERS
        written = {
            self._kubeconfig(user.file): certificates.kubeconfig(user.file, self.plane.url)
            for user in users
        }
        if self.several:
            # It finds no node of this name, and goes on without one after half a minute.
            proxy = proxy_configuration(_NAME, self.plane.address, self._kubeconfig(PROXY))
            written[self._proxy_configuration] = json.dumps(proxy, indent=1)
        return written

    def programs(self) -> list[Program]:
        """What runs beside etcd and the API server."""
        controllers = [self._controller_manager(), self._program(SCHEDULER)]
        if not self.several:
            return controllers
        proxy = kube_proxy(
            self.plane.programs[PROXY], self._proxy_configuration, self._kubeconfig(PROXY)
        )
        return [proxy, *controllers]

    def _controller_manager(self) -> Program:
        certificates = self.plane.certificates
        grace = [f"--node-monitor-grace-period={LOST_SECONDS}s"] if self.several else []
        return self._program(
            CONTROLLER_MANAGER,
            "--use-service-account-credentials=true",
            f"--service-account-private-key-file={certificates.service_accounts}",
            f"--root-ca-file={certificates.crt('ca')}",
            f"--cluster-signing-cert-file={certificates.crt('ca')}",
            f"--cluster-signing-key-file={certificates.key('ca')}",
            f"--flex-volume-plugin-dir={self.plane.state / 'kubelet-plugins'}",
            *grace,
        )

    def _program(self, name: str, *more: str) -> Program:
        """One that is a user of its own name to the API server, and the only one of its kind."""
        kubeconfig = self._kubeconfig(name)
        return Program(
            name,
            (
                str(self.plane.programs[name]),
                f"--kubeconfig={kubeconfig}",
                f"--authentication-kubeconfig={kubeconfig}",
                f"--authorization-kubeconfig={kubeconfig}",
                "--bind-address=127.0.0.1",
                "--leader-elect=false",
                *more,
            ),
            {},
            inputs=(kubeconfig,),
        )

    @property
    def _proxy_configuration(self) -> Path:
        return self.plane.state / "kube-proxy.json"

    def _kubeconfig(self, user: str) -> Path:
        return self.plane.state / "kubeconfigs" / user
