"""The cluster that the fleet is on, as faults and looks reach it."""

from __future__ import annotations

import base64
import http.client
import json
import re
import ssl
import tempfile
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from devcluster import Cluster, KubectlError, paths, topology
from devcluster.processes import Identity

if TYPE_CHECKING:
    from collections.abc import Iterator

    from chaos.proxy import Proxy
    from chaos.stores import Stores
    from devcluster import Api
    from devcluster.topology import Node

OPERATORS = "inferencemodel-system"
OPERATOR = "inferencemodel-operator"
SYSTEM = "kube-system"
_POD = re.compile(r"pod([0-9a-f]{8}(?:[-_][0-9a-f]{4}){3}[-_][0-9a-f]{12})")
_READ_SECONDS = 4.0


class UnreadableError(Exception):
    """The API server gave no answer."""


@dataclass(frozen=True)
class Process:
    """A process of a pod."""

    identity: Identity
    pod: str
    """The pod's uid."""
    command: str

    def is_a(self, part: str) -> bool:
        """Whether its command line has these words."""
        return part in self.command


class Ground:
    """One cluster, by its programs, its API server and the processes of its pods."""

    def __init__(self, cluster: Cluster, api: Api, stores: Stores, api_proxy: Proxy) -> None:
        """Read the administrator's kubeconfig.

        Args:
            cluster: its programs.
            api: its API server.
            stores: where the fleet's versions are.
            api_proxy: by which the operator asks the API server.
        """
        self.cluster = cluster
        self.api = api
        self.stores = stores
        self.api_proxy = api_proxy
        self._local = threading.local()
        self._port = int(api.url.rpartition(":")[2])
        self._tls = _tls(api.kubeconfig)

    @property
    def several(self) -> bool:
        """Whether there are several nodes."""
        return self.cluster.settings().several

    def nodes(self) -> tuple[Node, ...]:
        """All nodes."""
        settings = self.cluster.settings()
        if settings.several:
            return topology.several(settings.nodes, paths.STATE, paths.RUN)
        return (topology.only(paths.STATE, paths.RUN, paths.cache() / "containerd"),)

    def read(self, path: str) -> Any:
        """What the API server answers to a GET, by a connection of the thread's own.

        Raises:
            UnreadableError: it doesn't, or refuses.
        """
        for attempt in range(2):
            connection = getattr(self._local, "connection", None)
            fresh = connection is None
            if connection is None:
                connection = http.client.HTTPSConnection(
                    "127.0.0.1", self._port, timeout=_READ_SECONDS, context=self._tls
                )
                self._local.connection = connection
            try:
                connection.request("GET", path)
                answer = connection.getresponse()
                body = answer.read()
            except (OSError, http.client.HTTPException) as error:
                connection.close()
                self._local.connection = None
                if fresh or attempt:
                    raise UnreadableError(str(error)) from error
                continue
            if answer.status != http.HTTPStatus.OK:
                raise UnreadableError(f"{path}: {answer.status}")
            return json.loads(body)
        raise AssertionError

    def pods(self, namespace: str, selector: str = "") -> list[Any]:
        """The pods of a namespace.

        Raises:
            UnreadableError: as `read`.
        """
        query = f"?labelSelector={selector}" if selector else ""
        found: list[Any] = self.read(f"/api/v1/namespaces/{namespace}/pods{query}")["items"]
        return found

    def kubectl(self, *arguments: str, stdin: str | None = None, timeout: float = 60.0) -> str:
        """kubectl as an administrator.

        Raises:
            KubectlError: it failed.
        """
        return self.api.kubectl(*arguments, stdin=stdin, timeout=timeout)

    def try_kubectl(self, *arguments: str, stdin: str | None = None) -> str:
        """The same, with the error in place of the answer."""
        try:
            return self.kubectl(*arguments, stdin=stdin)
        except KubectlError as error:
            return str(error)

    def processes(self) -> Iterator[Process]:
        """Every process of every pod that runs now."""
        for directory in Path("/proc").glob("[0-9]*"):
            try:
                group = (directory / "cgroup").read_text()
                if paths.NAME not in group:
                    continue
                pod = _POD.search(group)
                command = (directory / "cmdline").read_bytes().decode(errors="replace")
            except OSError:
                continue
            identity = Identity.of(int(directory.name))
            if pod and identity and command:
                uid = pod[1].replace("_", "-")
                yield Process(identity, uid, command.replace("\0", " "))


def _tls(kubeconfig: Path) -> ssl.SSLContext:
    """The administrator's certificate and the cluster's authority."""
    content = json.loads(kubeconfig.read_text())
    cluster, user = content["clusters"][0]["cluster"], content["users"][0]["user"]
    context = ssl.create_default_context(
        cadata=base64.b64decode(cluster["certificate-authority-data"]).decode()
    )
    with tempfile.NamedTemporaryFile() as pair:
        for part in ("client-certificate-data", "client-key-data"):
            pair.write(base64.b64decode(user[part]))
        pair.flush()
        context.load_cert_chain(pair.name)
    return context
