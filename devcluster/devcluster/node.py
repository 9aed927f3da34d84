"""How a node runs: pure descriptions of its programs and their configuration."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from devcluster.certs import Certificate
from devcluster.network import BRIDGE, POD_NETWORK
from devcluster.processes import Program
from devcluster.runtime import Pods, Runtime

if TYPE_CHECKING:
    from pathlib import Path

    from devcluster.controlplane import ControlPlane
    from devcluster.topology import Node

POD_NETWORK_NAME = "devcluster"
CLUSTER_DOMAIN = "cluster.local"
CLUSTER_DNS = "10.96.0.10"

KUBELET = "kubelet"
PROXY = "kube-proxy"

#: The user that every kube-proxy is to the API server.
PROXY_USER = Certificate(PROXY, "system:kube-proxy")


def kubelet_user(node: Node) -> Certificate:
    """The user that a node's kubelet is to the API server, and the server that it is to that."""
    return Certificate(
        node.user,
        f"system:node:{node.name}",
        group="system:nodes",
        names=(f"DNS:{node.name}", "IP:127.0.0.1", f"IP:{node.address}"),
    )


def proxy_configuration(name: str, address: str, kubeconfig: Path) -> dict[str, Any]:
    """kube-proxy's configuration, for a node or for the control plane's side."""
    return {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": "iptables",
        "hostnameOverride": name,
        "clusterCIDR": POD_NETWORK,
        "clientConnection": {"kubeconfig": str(kubeconfig)},
        # NodePorts are for this machine, not for the network that it is in.
        "nodePortAddresses": ["127.0.0.0/8", f"{address}/32"],
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


def kube_proxy(
    program: Path, configuration: Path, kubeconfig: Path, within: tuple[str, ...] = ()
) -> Program:
    """How it is started, for a node or for the control plane's side; ``within`` goes before it."""
    return Program(
        PROXY,
        (*within, str(program), f"--config={configuration}"),
        {},
        inputs=(configuration, kubeconfig),
    )


@dataclass(frozen=True)
class NodePrograms:
    """The programs of a node, over a control plane."""

    plane: ControlPlane
    node: Node
    plugins: Path
    """The directory of the CNI plugins."""
    sandbox_image: str

    @property
    def runtime(self) -> Runtime:
        """The node's containerd."""
        state = self.node.state
        return Runtime(
            self.plane.programs,
            state / "containerd.toml",
            root=self.node.images,
            sockets=self.node.sockets,
            pods=Pods(self.plugins, state / "cni", self.sandbox_image),
            within=self._within,
        )

    @property
    def resolv_conf(self) -> Path:
        """The name servers of the machine, as pods may use them."""
        return self.plane.state / "resolv.conf"

    def configuration(self) -> dict[Path, str]:
        """Every file that the node's programs read, with its content."""
        certificates = self.plane.certificates
        url = self.plane.inner_url if self.node.namespace else self.plane.url
        kubeconfigs = {
            self._kubeconfig(KUBELET): certificates.kubeconfig(self.node.user, url),
            self._kubeconfig(PROXY): certificates.kubeconfig(PROXY, url),
        }
        state = self.node.state
        return {
            **kubeconfigs,
            state / "cni" / "10-devcluster.conflist": _json(self.cni()),
            state / "containerd.toml": self.runtime.toml(),
            state / "kubelet.json": _json(self.kubelet_configuration()),
            state / "kube-proxy.json": _json(self.proxy_configuration()),
        }

    def programs(self) -> list[Program]:
        """What runs on the node beside containerd."""
        return [self._kubelet(), self._proxy()]

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
                        "ranges": [[{"subnet": self.node.pods, "gateway": self.node.gateway}]],
                        "routes": [{"dst": "0.0.0.0/0"}],
                        "dataDir": str(self.node.sockets / "addresses"),
                    },
                },
                {"type": "portmap", "capabilities": {"portMappings": True}},
            ],
        }

    def kubelet_configuration(self) -> dict[str, Any]:
        """The kubelet's configuration."""
        certificates = self.plane.certificates
        return {
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "address": self.node.address,
            "authentication": {
                "anonymous": {"enabled": False},
                "webhook": {"enabled": True},
                "x509": {"clientCAFile": str(certificates.crt("ca"))},
            },
            "authorization": {"mode": "Webhook"},
            "tlsCertFile": str(certificates.crt(self.node.user)),
            "tlsPrivateKeyFile": str(certificates.key(self.node.user)),
            "clusterDomain": CLUSTER_DOMAIN,
            "clusterDNS": [CLUSTER_DNS],
            "resolvConf": str(self.resolv_conf),
            "containerRuntimeEndpoint": f"unix://{self.runtime.socket}",
            "cgroupDriver": "cgroupfs",
            "cgroupRoot": self.node.control_group,
            "failCgroupV1": False,
            "failSwapOn": False,
            "maxPods": self.node.max_pods,
            "podLogsDir": str(self.node.pod_logs),
            "volumePluginDir": str(self.node.state / "kubelet-plugins"),
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
        } | self._of_several()

    def _of_several(self) -> dict[str, Any]:
        """What is different where nodes come and go: their loss and recovery are told sooner."""
        if not self.node.namespace:
            return {}
        return {
            "healthzBindAddress": self.node.inner_address,
            # Renewed every quarter of it.
            "nodeLeaseDurationSeconds": 20,
            "nodeStatusUpdateFrequency": "5s",
            "evictionPressureTransitionPeriod": "20s",
        }

    def proxy_configuration(self) -> dict[str, Any]:
        """kube-proxy's configuration."""
        return proxy_configuration(self.node.name, self.node.address, self._kubeconfig(PROXY))

    def _kubelet(self) -> Program:
        configuration = self.node.state / "kubelet.json"
        zone = [f"--node-labels=topology.kubernetes.io/zone={self.node.zone}"]
        return Program(
            KUBELET,
            (
                *self._within,
                str(self.plane.programs[KUBELET]),
                f"--config={configuration}",
                f"--kubeconfig={self._kubeconfig(KUBELET)}",
                f"--root-dir={self.node.kubelet}",
                f"--cert-dir={self.plane.state / 'pki'}",
                f"--hostname-override={self.node.name}",
                f"--node-ip={self.node.address}",
                *(zone if self.node.zone else []),
            ),
            {},
            inputs=(configuration, self._kubeconfig(KUBELET)),
        )

    def _proxy(self) -> Program:
        return kube_proxy(
            self.plane.programs[PROXY],
            self.node.state / "kube-proxy.json",
            self._kubeconfig(PROXY),
            self._within,
        )

    @property
    def _within(self) -> tuple[str, ...]:
        # nsenter becomes the program, so the process that was started is the program's own.
        namespace = self.node.namespace
        return ("nsenter", f"--net={namespace}", "--") if namespace else ()

    def _kubeconfig(self, user: str) -> Path:
        return self.node.state / "kubeconfigs" / user


def usable_resolv_conf(content: str) -> str:
    """A resolv.conf without name servers that only the machine itself can ask."""
    return "".join(
        f"{line}\n"
        for line in content.splitlines()
        if not (line.split()[:1] == ["nameserver"] and line.split()[1].startswith(("127.", "::1")))
    )


def _json(content: dict[str, Any]) -> str:
    return json.dumps(content, indent=1)
