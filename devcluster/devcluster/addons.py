"""What runs in every cluster as pods: DNS, the ingress controller, metrics."""

from __future__ import annotations

import json
import socket
import string
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from devcluster import paths
from devcluster.client import KubectlError
from devcluster.errors import StartError
from devcluster.images import write_program_image
from devcluster.network import NODE_ADDRESS
from devcluster.node import CLUSTER_DNS, CLUSTER_DOMAIN
from devcluster.processes import LOOK_EVERY

if TYPE_CHECKING:
    from collections.abc import Mapping

    from devcluster.client import Api
    from devcluster.images import NodeImages

NAMES = ("coredns", "traefik", "metrics-server")
#: Seconds that each may take to be ready.
READY_SECONDS = 120


@dataclass(frozen=True)
class Addons:
    """The pods of the cluster itself."""

    programs: Mapping[str, Path]
    http_port: int
    https_port: int
    name_servers: bool
    """Whether the machine has name servers that pods can ask."""
    several: bool = False
    """Whether there are several nodes: then no pod is the only one of its kind, and the ingress is
    reached as with a cloud's load balancer, at an address of its own that no node has."""

    def image(self, name: str) -> str:
        """An addon's image, tagged by the key of the program in it."""
        return program_image(self.programs[name])

    def manifest(self, name: str) -> str:
        """An addon's objects, as YAML."""
        template = string.Template((paths.MANIFESTS / f"{name}.yaml").read_text())
        return template.substitute(
            image=self.image(name),
            domain=CLUSTER_DOMAIN,
            address=CLUSTER_DNS,
            forward="forward . /etc/resolv.conf" if self.name_servers else "",
            http_port=self.http_port,
            https_port=self.https_port,
            **self._exposure(),
        )

    def _exposure(self) -> dict[str, str | int]:
        if self.several:
            return {
                "replicas": 2,
                "strategy": "RollingUpdate",
                "ingress_address": NODE_ADDRESS,
                "web_host": "",
                "websecure_host": "",
                "service_type": "LoadBalancer\n  allocateLoadBalancerNodePorts: false",
                "web_port": self.http_port,
                "websecure_port": self.https_port,
            }
        host = ", hostPort: {}, hostIP: 127.0.0.1"
        return {
            "replicas": 1,
            # Two at once can't have the same ports of the machine.
            "strategy": "Recreate",
            "ingress_address": "127.0.0.1",
            "web_host": host.format(self.http_port),
            "websecure_host": host.format(self.https_port),
            "service_type": "ClusterIP",
            "web_port": 80,
            "websecure_port": 443,
        }

    def apply(self, api: Api) -> None:
        """Have the API server hold the objects."""
        documents = "\n---\n".join(self.manifest(name) for name in NAMES)
        api.kubectl(
            *("apply", "--server-side", "--force-conflicts", "--field-manager=devcluster"),
            *("-f", "-"),
            stdin=documents,
        )
        if self.several:
            # What a cloud's controller does: every kube-proxy, the control plane's too, then takes
            # what is sent to this address for the Service's.
            status = {"loadBalancer": {"ingress": [{"ip": NODE_ADDRESS, "ipMode": "VIP"}]}}
            api.kubectl(
                *("--namespace=kube-system", "patch", "service", "traefik", "--type=merge"),
                *("--subresource=status", f"--patch={json.dumps({'status': status})}"),
            )

    def wait(self, api: Api) -> None:
        """Wait until DNS and ingress are ready, and answer.

        Metrics are not waited for: they need a quarter of a minute to have anything to tell.

        Raises:
            StartError: they don't, after ``READY_SECONDS``; tells what became of the pods.
        """
        addresses = {
            "coredns": (CLUSTER_DNS, 53),
            "traefik": (NODE_ADDRESS if self.several else "127.0.0.1", self.http_port),
        }
        for name, address in addresses.items():
            try:
                api.kubectl(
                    *("--namespace=kube-system", "rollout", "status", f"deployment/{name}"),
                    f"--timeout={READY_SECONDS}s",
                    timeout=READY_SECONDS + 10,
                )
                # After a crash of the machine the API server tells for a while of what was.
                _wait_for_answer(address)
            except (KubectlError, StartError) as error:
                pods = api.kubectl("--namespace=kube-system", "get", "pods")
                events = api.kubectl("--namespace=kube-system", "events", "--types=Warning")
                raise StartError(f"{name} is not ready: {error}\n{pods}\n{events}") from error


def _wait_for_answer(address: tuple[str, int]) -> None:
    deadline = time.monotonic() + READY_SECONDS
    while True:
        try:
            socket.create_connection(address, timeout=2).close()
        except OSError as error:
            if time.monotonic() > deadline:
                raise StartError(f"no answer on {address[0]}:{address[1]}: {error}") from error
            time.sleep(LOOK_EVERY)
        else:
            return


def program_image(program: Path) -> str:
    """The name of the image that holds one of our programs."""
    return f"{paths.NAME}/{program.name}:{program.parent.name.rpartition('-')[2]}"


def load_program(program: Path, images: NodeImages) -> bool:
    """Bring a program onto the node as an image; False when it was there."""
    name = program_image(program)
    key = program.parent.name
    if images.has(name, key):
        return False
    with tempfile.TemporaryDirectory(dir=paths.cache()) as directory:
        archive = Path(directory) / "image.tar"
        write_program_image(program, name, archive)
        images.load_from(archive, name, key)
    return True
