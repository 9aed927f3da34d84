"""How etcd and the API server run, alone and as part of a node: pure descriptions."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from devcluster import files
from devcluster.certs import FRONT_PROXY_CA, Certificate, Certificates
from devcluster.errors import UsageError
from devcluster.processes import Program

if TYPE_CHECKING:
    from pathlib import Path

#: The kernel's limit on the path of a Unix socket, less its closing zero byte.
SOCKET_PATH_LIMIT = 107
SERVICE_NETWORK = "10.96.0.0/16"
#: The address of the Service ``kubernetes``: always the first of the network.
KUBERNETES_SERVICE = "10.96.0.1"
ADMIN = "admin"
API_SERVER = "kube-apiserver"
#: The API server would wait a minute for watches that go on; what matters is in etcd by then.
STOP_SECONDS = 3.0

#: Who wrote what, without the contents; reads and the cluster's own heartbeats are left out.
AUDIT_POLICY = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived", "ResponseStarted", "Panic"],
    "rules": [
        {"level": "None", "verbs": ["get", "list", "watch"]},
        {"level": "None", "resources": [{"group": "coordination.k8s.io"}]},
        {"level": "None", "resources": [{"group": "", "resources": ["events"]}]},
        {"level": "Metadata"},
    ],
}


@dataclass(frozen=True)
class ControlPlane:
    """An etcd and an API server over it."""

    programs: dict[str, Path]
    state: Path
    """Where etcd, the certificates and the audit log live."""
    sockets: Path
    """Where etcd's sockets are, for the owner alone: they are its only protection."""
    port: int
    """The API server's port."""
    address: str = "127.0.0.1"
    """The address that the API server advertises to the pods."""
    node: bool = False
    """Whether there is a whole node, with pods that reach the API server."""

    @property
    def certificates(self) -> Certificates:
        """The cluster's certificates."""
        return Certificates(self.state / "pki")

    @property
    def url(self) -> str:
        """The API server as seen from this machine."""
        return f"https://127.0.0.1:{self.port}"

    @property
    def inner_url(self) -> str:
        """The API server as seen from nodes with a network of their own."""
        return f"https://{self.address}:{self.port}"

    @property
    def audit_log(self) -> Path:
        """One JSON event (``audit.k8s.io/v1``) a line for each write."""
        return self.state / "audit.log"

    @property
    def _audit_policy(self) -> Path:
        return self.state / "audit-policy.json"

    def prepare(self) -> None:
        """Write the files that the programs read.

        Raises:
            UsageError: the directory's name is too long to hold a socket.
        """
        socket = self.sockets / "etcd-clients"
        if len(str(socket)) > SOCKET_PATH_LIMIT:
            raise UsageError(f"{self.sockets} is too long for a Unix socket: name a shorter one")
        for directory in (self.state, self.sockets):
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        files.write(self._audit_policy, json.dumps(AUDIT_POLICY, indent=1))
        self.certificates.ensure(
            Certificate(
                API_SERVER,
                "kube-apiserver",
                names=(
                    "DNS:kubernetes",
                    "DNS:kubernetes.default",
                    "DNS:kubernetes.default.svc",
                    "DNS:kubernetes.default.svc.cluster.local",
                    "DNS:localhost",
                    "IP:127.0.0.1",
                    f"IP:{KUBERNETES_SERVICE}",
                    f"IP:{self.address}",
                ),
            ),
            Certificate(ADMIN, "devcluster-admin", group="system:masters"),
            Certificate("kubelet-client", "kube-apiserver-kubelet-client", group="system:masters"),
            Certificate("front-proxy-client", "front-proxy-client", authority=FRONT_PROXY_CA),
        )

    def etcd(self) -> Program:
        """The store, on sockets only."""
        clients = f"unix://{self.sockets}/etcd-clients"
        peers = f"unix://{self.sockets}/etcd-peers"
        argv = [
            str(self.programs["etcd"]),
            f"--data-dir={self.state}/etcd",
            f"--listen-client-urls={clients}",
            f"--advertise-client-urls={clients}",
            f"--listen-peer-urls={peers}",
            f"--initial-advertise-peer-urls={peers}",
            f"--initial-cluster=default={peers}",
            "--log-level=warn",
        ]
        if not self.node:
            # Nothing of an API server for tests outlives a crash of the machine anyway.
            argv.append("--unsafe-no-fsync")
        return Program("etcd", tuple(argv), {})

    def api_server(self) -> Program:
        """The API server, with the admission and authorization of a normal cluster."""
        certificates = self.certificates
        argv = [
            str(self.programs[API_SERVER]),
            f"--etcd-servers=unix://{self.sockets}/etcd-clients",
            f"--secure-port={self.port}",
            f"--bind-address={'0.0.0.0' if self.node else '127.0.0.1'}",  # noqa: S104 (firewalled)
            f"--advertise-address={self.address}",
            f"--service-cluster-ip-range={SERVICE_NETWORK}",
            f"--tls-cert-file={certificates.crt(API_SERVER)}",
            f"--tls-private-key-file={certificates.key(API_SERVER)}",
            f"--client-ca-file={certificates.crt('ca')}",
            "--service-account-issuer=https://kubernetes.default.svc.cluster.local",
            f"--service-account-key-file={certificates.service_accounts}",
            f"--service-account-signing-key-file={certificates.service_accounts}",
            "--authorization-mode=Node,RBAC",
            "--enable-admission-plugins=NodeRestriction,OwnerReferencesPermissionEnforcement",
            "--allow-privileged=true",
            f"--kubelet-client-certificate={certificates.crt('kubelet-client')}",
            f"--kubelet-client-key={certificates.key('kubelet-client')}",
            f"--kubelet-certificate-authority={certificates.crt('ca')}",
            "--kubelet-preferred-address-types=InternalIP",
            f"--requestheader-client-ca-file={certificates.crt(FRONT_PROXY_CA)}",
            "--requestheader-allowed-names=front-proxy-client",
            "--requestheader-username-headers=X-Remote-User",
            "--requestheader-group-headers=X-Remote-Group",
            "--requestheader-extra-headers-prefix=X-Remote-Extra-",
            f"--proxy-client-cert-file={certificates.crt('front-proxy-client')}",
            f"--proxy-client-key-file={certificates.key('front-proxy-client')}",
            f"--audit-policy-file={self._audit_policy}",
            f"--audit-log-path={self.audit_log}",
            # A finished request is in the log at once, so that a test may count.
            "--audit-log-mode=blocking",
        ]
        if not self.node:
            # Nobody creates the service account "default" where no controllers run.
            argv.append("--disable-admission-plugins=ServiceAccount")
        return Program(
            API_SERVER,
            tuple(argv),
            {},
            inputs=(self._audit_policy, certificates.crt(API_SERVER)),
        )
