"""How a node and its controllers run: pure descriptions of programs and their configuration."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from devcluster import cgroups
from devcluster.certs import Certificate
from devcluster.network import BRIDGE, NODE_ADDRESS, POD_NETWORK
from devcluster.packages import SYSTEM_DIRECTORIES
from devcluster.processes import Program

if TYPE_CHECKING:
    from pathlib import Path

    from devcluster.controlplane import ControlPlane

NODE_NAME = "devcluster"
POD_NETWORK_NAME = "devcluster"
CLUSTER_DOMAIN = "cluster.local"
CLUSTER_DNS = "10.96.0.10"
#: As many as the pods' network has room for, and more than a test needs.
MAX_PODS = 500

CONTROLLER_MANAGER = "kube-controller-manager"
SCHEDULER = "kube-scheduler"
KUBELET = "kubelet"
PROXY = "kube-proxy"
CONTAINERD = "containerd"

#: The users that the programs are to the API server; the names are Kubernetes' own.
USERS = (
    Certificate(CONTROLLER_MANAGER, "system:kube-controller-manager"),
    Certificate(SCHEDULER, "system:kube-scheduler"),
    Certificate(PROXY, "system:kube-proxy"),
    Certificate(
        KUBELET,
        f"system:node:{NODE_NAME}",
        group="system:nodes",
        names=(f"DNS:{NODE_NAME}", "IP:127.0.0.1", f"IP:{NODE_ADDRESS}"),
    ),
)


@dataclass(frozen=True)
class Node:
    """The one node, over a control plane."""

    plane: ControlPlane
    images: Path
    """containerd's store, which outlives the cluster."""
    plugins: Path
    """The directory of the CNI plugins."""
    sandbox_image: str

    @property
    def state(self) -> Path:
        """What survives a reboot."""
        return self.plane.state

    @property
    def sockets(self) -> Path:
        """What does not."""
        return self.plane.sockets

    @property
    def containerd_socket(self) -> Path:
        """Where containerd listens."""
        return self.sockets / "containerd.sock"

    @property
    def resolv_conf(self) -> Path:
        """The name servers of the machine, as pods may use them."""
        return self.state / "resolv.conf"

    def configuration(self) -> dict[Path, str]:
        """Every file that the node's programs read, with its content."""
        certificates = self.plane.certificates
        kubeconfigs = {
            self._kubeconfig(user.file): certificates.kubeconfig(user.file, self.plane.url)
            for user in USERS
        }
        return {
            **kubeconfigs,
            self.state / "cni" / "10-devcluster.conflist": _json(self.cni()),
            self.state / "containerd.toml": self.containerd_toml(),
            self.state / "kubelet.json": _json(self.kubelet_configuration()),
            self.state / "kube-proxy.json": _json(self.proxy_configuration()),
        }

    def programs(self) -> list[Program]:
        """What runs beside containerd, etcd and the API server."""
        return [self._controller_manager(), self._scheduler(), self._kubelet(), self._proxy()]

    def cni(self) -> dict[str, Any]:
        """The pods' network: a bridge, and ports of the host for those that ask for one."""
        return {
            "cniVersion": "1.0.0",
            "name": POD_NETWORK_NAME,
            "plugins": [
                {
                    "type": "bridge",
                    "bridge": BRIDGE,
                    "isGateway": True,
                    "hairpinMode": True,
                    "ipam": {
                        "type": "host-local",
                        "ranges": [[{"subnet": POD_NETWORK, "gateway": NODE_ADDRESS}]],
                        "routes": [{"dst": "0.0.0.0/0"}],
                        "dataDir": str(self.sockets / "addresses"),
                    },
                },
                {"type": "portmap", "capabilities": {"portMappings": True}},
            ],
        }

    def containerd_toml(self) -> str:
        """containerd's configuration; everything it writes is below our own directories."""
        run = self.sockets / "containerd"
        return f"""\
version = 3
root = {_quoted(self.images)}
state = {_quoted(run)}
imports = []
disabled_plugins = [
  "io.containerd.nri.v1.nri",
  "io.containerd.snapshotter.v1.blockfile",
  "io.containerd.snapshotter.v1.devmapper",
  "io.containerd.snapshotter.v1.erofs",
  "io.containerd.snapshotter.v1.zfs",
  "io.containerd.tracing.processor.v1.otlp",
]

[plugins."io.containerd.server.v1.grpc"]
address = {_quoted(self.containerd_socket)}

[plugins."io.containerd.server.v1.ttrpc"]
address = {_quoted(f"{self.containerd_socket}.ttrpc")}

[plugins."io.containerd.internal.v1.opt"]
path = {_quoted(self.images / "opt")}

[plugins."io.containerd.shim.v1.manager"]
socket_dir = {_quoted(self.sockets / "s")}

[plugins."io.containerd.cri.v1.images"]
snapshotter = "overlayfs"

[plugins."io.containerd.cri.v1.images".pinned_images]
sandbox = {_quoted(self.sandbox_image)}

[plugins."io.containerd.cri.v1.runtime"]
# Where root lacks CAP_SYS_RESOURCE, as in many virtual machines and containers, a lower value than
# containerd's own can't be set, and no container would start.
restrict_oom_score_adj = true
netns_mounts_under_state_dir = true

[plugins."io.containerd.cri.v1.runtime".cni]
bin_dirs = [{_quoted(self.plugins)}]
conf_dir = {_quoted(self.state / "cni")}
use_internal_loopback = true

[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"

[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc.options]
SystemdCgroup = false
Root = {_quoted(self.sockets / "runc")}
"""

    def kubelet_configuration(self) -> dict[str, Any]:
        """The kubelet's configuration."""
        certificates = self.plane.certificates
        return {
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "address": NODE_ADDRESS,
            "authentication": {
                "anonymous": {"enabled": False},
                "webhook": {"enabled": True},
                "x509": {"clientCAFile": str(certificates.crt("ca"))},
            },
            "authorization": {"mode": "Webhook"},
            "tlsCertFile": str(certificates.crt(KUBELET)),
            "tlsPrivateKeyFile": str(certificates.key(KUBELET)),
            "clusterDomain": CLUSTER_DOMAIN,
            "clusterDNS": [CLUSTER_DNS],
            "resolvConf": str(self.resolv_conf),
            "containerRuntimeEndpoint": f"unix://{self.containerd_socket}",
            "cgroupDriver": "cgroupfs",
            "cgroupRoot": cgroups.ROOT,
            "failCgroupV1": False,
            "failSwapOn": False,
            "maxPods": MAX_PODS,
            "podLogsDir": str(self.state / "logs" / "pods"),
            "volumePluginDir": str(self.state / "kubelet-plugins"),
            "oomScoreAdj": 0,
            # A development machine's disk is often nearly full, and its images can't be pulled
            # again: nothing is evicted or collected before the disk really is.
            "evictionHard": {
                "memory.available": "100Mi",
                "nodefs.available": "1%",
                "nodefs.inodesFree": "1%",
                "imagefs.available": "1%",
            },
            "imageGCHighThresholdPercent": 100,
            "imageGCLowThresholdPercent": 99,
        }

    def proxy_configuration(self) -> dict[str, Any]:
        """kube-proxy's configuration."""
        return {
            "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
            "kind": "KubeProxyConfiguration",
            "mode": "iptables",
            "hostnameOverride": NODE_NAME,
            "clusterCIDR": POD_NETWORK,
            "clientConnection": {"kubeconfig": str(self._kubeconfig(PROXY))},
            # NodePorts are for this machine, not for the network that it is in.
            "nodePortAddresses": ["127.0.0.0/8", f"{NODE_ADDRESS}/32"],
            "healthzBindAddress": "127.0.0.1:10256",
            "metricsBindAddress": "127.0.0.1:10249",
            "oomScoreAdj": 0,
            # The machine's own settings stay.
            "conntrack": {
                "maxPerCore": 0,
                "tcpEstablishedTimeout": "0s",
                "tcpCloseWaitTimeout": "0s",
            },
        }

    def containerd(self) -> Program:
        """The container runtime; it finds its shim, and the shim finds runc, through PATH."""
        built = self.plane.programs
        configuration = self.state / "containerd.toml"
        places = [str(built["containerd-shim-runc-v2"].parent), *SYSTEM_DIRECTORIES]
        return Program(
            CONTAINERD,
            (str(built[CONTAINERD]), f"--config={configuration}"),
            {"PATH": ":".join(places)},
            inputs=(configuration,),
        )

    def _kubelet(self) -> Program:
        configuration = self.state / "kubelet.json"
        return Program(
            KUBELET,
            (
                str(self.plane.programs[KUBELET]),
                f"--config={configuration}",
                f"--kubeconfig={self._kubeconfig(KUBELET)}",
                f"--root-dir={self.state / 'kubelet'}",
                f"--cert-dir={self.state / 'pki'}",
                f"--hostname-override={NODE_NAME}",
                f"--node-ip={NODE_ADDRESS}",
            ),
            {},
            inputs=(configuration, self._kubeconfig(KUBELET)),
        )

    def _proxy(self) -> Program:
        configuration = self.state / "kube-proxy.json"
        return Program(
            PROXY,
            (str(self.plane.programs[PROXY]), f"--config={configuration}"),
            {},
            inputs=(configuration, self._kubeconfig(PROXY)),
        )

    def _controller_manager(self) -> Program:
        certificates = self.plane.certificates
        kubeconfig = self._kubeconfig(CONTROLLER_MANAGER)
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
                f"--flex-volume-plugin-dir={self.state / 'kubelet-plugins'}",
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
        return self.state / "kubeconfigs" / user


def usable_resolv_conf(content: str) -> str:
    """A resolv.conf without name servers that only the machine itself can ask."""
    return "".join(
        f"{line}\n"
        for line in content.splitlines()
        if not (line.split()[:1] == ["nameserver"] and line.split()[1].startswith(("127.", "::1")))
    )


def _quoted(text: object) -> str:
    # A JSON string is a basic string of TOML too.
    return json.dumps(str(text))


def _json(content: dict[str, Any]) -> str:
    return json.dumps(content, indent=1)
