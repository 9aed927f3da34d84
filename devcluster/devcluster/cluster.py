"""The whole cluster: brings it up, repairs it, takes it down."""

from __future__ import annotations

import contextlib
import json
import shutil
import signal
import socket
import urllib.request
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from devcluster import (
    build,
    cgroups,
    files,
    leftovers,
    locks,
    mounts,
    network,
    packages,
    paths,
    recipes,
    topology,
)
from devcluster.addons import NAMES, Addons, load_program, program_image
from devcluster.client import Api, KubectlError, answers
from devcluster.controllers import CONTROLLER_MANAGER, SCHEDULER, USERS, Controllers
from devcluster.controlplane import ADMIN, API_SERVER, STOP_SECONDS, ControlPlane
from devcluster.errors import DevclusterError, PreconditionError, UsageError
from devcluster.images import NodeImages
from devcluster.network import Network
from devcluster.node import (
    KUBELET,
    PROXY,
    PROXY_USER,
    NodePrograms,
    kubelet_user,
    usable_resolv_conf,
)
from devcluster.processes import Identity, Processes
from devcluster.progress import step
from devcluster.runtime import CONTAINERD

if TYPE_CHECKING:
    from devcluster.certs import Certificate
    from devcluster.topology import Node

API_PORT = 6443
READY_SECONDS = 120.0
#: In the order in which they end.
_PROGRAMS = (
    (KUBELET, PROXY, CONTROLLER_MANAGER, SCHEDULER),
    (API_SERVER,),
    ("etcd", CONTAINERD),
)

#: The ports of 127.0.0.1 that the programs take, with what is most likely there otherwise.
_PORTS = (API_PORT, 10248, 10249, 10250, 10256, 10257, 10259)


@dataclass(frozen=True)
class Settings:
    """What the caller may choose; kept with the cluster."""

    http_port: int = 80
    https_port: int = 443


@dataclass(frozen=True)
class Status:
    """The cluster as it is."""

    running: bool
    """Every program runs and the API server is ready."""
    programs: dict[str, int | None]
    """Process ids; None for one that should run and does not."""
    node_ready: bool
    kubeconfig: str
    url: str
    ingress: str
    """Where the ingress controller answers HTTP, such as ``http://127.0.0.1:80``."""
    ingress_tls: str
    audit_log: str
    logs: str
    cache: str


class Cluster:
    """The one embedded cluster of this machine."""

    def __init__(self) -> None:
        self._state = paths.STATE
        self._sockets = paths.RUN
        self._processes = Processes(self._state / "processes", self._state / "logs")
        self._network = Network(self._state / "host.json")

    @property
    def kubeconfig(self) -> Path:
        """The kubeconfig of an administrator."""
        return self._state / "kubeconfig"

    @property
    def processes(self) -> Processes:
        """The programs, with their logs."""
        return self._processes

    def exists(self) -> bool:
        """Whether there is a cluster, in whatever condition."""
        return self._state.exists()

    def api(self) -> Api:
        """How to reach the API server.

        Raises:
            UsageError: the cluster was not brought up.
        """
        if not self.kubeconfig.exists():
            raise UsageError("there is no cluster: bring it up with `devcluster up`")
        plane = self._plane({})
        return Api(
            self.kubeconfig,
            plane.url,
            program=build.ensure(["kubectl"])["kubectl"],
            audit_log=plane.audit_log,
            ingress=f"127.0.0.1:{self.settings().http_port}",
        )

    def up(self, settings: Settings | None = None) -> Api:
        """Bring the cluster up, or repair what of it does not run.

        Without settings those of the existing cluster stay.

        Raises:
            DevclusterError: the machine lacks something, or a program fails; the message says
                which, why, and where its log is.
        """
        packages.require_linux_root()
        with locks.exclusive("cluster"):
            chosen = settings or self.settings()
            packages.ensure(packages.NODE)
            self._check_machine(chosen)
            programs = build.ensure(build.NODE_TOOLS)
            fresh = not (self._state / "etcd").exists()
            self._state.mkdir(mode=0o700, parents=True, exist_ok=True)
            files.write(self._state / "settings.json", json.dumps(asdict(chosen)))
            plane = self._plane(programs)
            controllers = Controllers(plane)
            node = self._node(plane)
            with step("starting etcd and the API server"):
                self._start_api_server(plane, kubelet_user(node.node))
            with step("preparing the machine's network and control groups"):
                self._network.setup(API_PORT)
                cgroups.create(self._state / "controllers.json")
            with step("starting containerd"):
                images = self._start_containerd(node, fresh=fresh)
            self._load_system_images(programs, images)
            api = self.api()
            with step("starting the controllers and the node"):
                for path, content in controllers.configuration().items():
                    files.write(path, content)
                for program in (*controllers.programs(), *node.programs()):
                    self._processes.ensure(program)
                self._processes.wait(
                    KUBELET,
                    lambda: node_ready(node.node, api),
                    what="the node was Ready",
                    within=READY_SECONDS,
                )
            self._apply_addons(api, chosen, programs, node)
            return api

    def down(self) -> None:
        """Take the cluster away: processes, mounts, network, control groups, data.

        What is slow to make stays in the cache: programs and images.

        Raises:
            DevclusterError: something does not go.
        """
        packages.require_linux_root()
        if not self.exists():
            return
        with locks.exclusive("cluster"):
            with step("stopping the cluster's programs"):
                for names in _PROGRAMS[:-1]:
                    self._processes.stop_all(names, STOP_SECONDS)
            with step("ending the pods"):
                self._end_containers()
                self._processes.stop_all(_PROGRAMS[-1])
            with step("putting the machine back as it was"), locks.exclusive("images"):
                mounts.unmount_below(self._state, self._sockets, self._images_root, recipes.RUNROOT)
                cgroups.remove(self._state / "controllers.json")
                self._network.restore()
                leftovers.remove(self._state)
                for directory in (recipes.RUNROOT, self._sockets, self._state):
                    shutil.rmtree(directory, ignore_errors=True)

    def reset(self) -> Api:
        """A clean API: the same cluster with nothing in it, and the images still on the node."""
        settings = self.settings()
        self.down()
        return self.up(settings)

    def status(self) -> Status:
        """The cluster as it is; cheap, and harmless at any time."""
        plane = self._plane({})
        settings = self.settings()
        names = [name for group in _PROGRAMS for name in group]
        found = {name: self._processes.identity(name) for name in names}
        authority = plane.certificates.crt("ca")
        ready = authority.exists() and answers(API_PORT, authority, "/readyz")
        return Status(
            running=ready and all(found.values()),
            programs={name: identity.pid if identity else None for name, identity in found.items()},
            node_ready=ready and node_ready(self._where(), self.api()),
            kubeconfig=str(self.kubeconfig),
            url=plane.url,
            ingress=f"http://127.0.0.1:{settings.http_port}",
            ingress_tls=f"https://127.0.0.1:{settings.https_port}",
            audit_log=str(plane.audit_log),
            logs=str(self._processes.logs),
            cache=str(paths.cache()),
        )

    def settings(self) -> Settings:
        """What was chosen when the cluster was brought up; the defaults when there is none."""
        with contextlib.suppress(FileNotFoundError):
            return Settings(**json.loads((self._state / "settings.json").read_text()))
        return Settings()

    def images(self) -> NodeImages:
        """The images on the node.

        Raises:
            UsageError: the node does not run.
        """
        if self._processes.identity(CONTAINERD) is None:
            raise UsageError("the cluster does not run: bring it up with `devcluster up`")
        return NodeImages(build.ensure(["ctr"])["ctr"], self._sockets / "containerd.sock")

    @property
    def _images_root(self) -> Path:
        return paths.cache() / "containerd"

    def _where(self) -> Node:
        return topology.only(self._state, self._sockets, self._images_root)

    def _plane(self, programs: dict[str, Path]) -> ControlPlane:
        return ControlPlane(
            programs,
            state=self._state,
            sockets=self._sockets,
            port=API_PORT,
            address=network.NODE_ADDRESS,
            node=True,
        )

    def _node(self, plane: ControlPlane) -> NodePrograms:
        plugins = packages.plugins()
        if plugins is None:
            raise PreconditionError("the CNI plugins are missing")
        return NodePrograms(
            plane,
            self._where(),
            plugins=plugins,
            sandbox_image=f"docker.io/{program_image(plane.programs['pause'])}",
        )

    def _check_machine(self, settings: Settings) -> None:
        """See that nothing else is where the cluster goes; one that is up already may stay."""
        if self._processes.names():
            return
        network.check()
        taken = [
            port for port in (*_PORTS, settings.http_port, settings.https_port) if _taken(port)
        ]
        if taken:
            ports = ", ".join(str(port) for port in taken)
            raise PreconditionError(
                f"ports of 127.0.0.1 that are in use: {ports}. End what holds them (`ss -ltnp`), "
                "name others for the ingress (--http-port, --https-port), or, if this is another "
                "Kubernetes, export its KUBECONFIG and use that"
            )

    def _start_api_server(self, plane: ControlPlane, *kubelets: Certificate) -> None:
        plane.prepare()
        plane.certificates.ensure(*USERS, PROXY_USER, *kubelets)
        self._processes.ensure(plane.etcd())
        self._processes.ensure(plane.api_server())
        self._processes.wait(
            API_SERVER,
            lambda: answers(API_PORT, plane.certificates.crt("ca"), "/readyz"),
            what="it was ready",
            within=READY_SECONDS,
        )
        files.write(self.kubeconfig, plane.certificates.kubeconfig(ADMIN, plane.url))

    def _start_containerd(self, node: NodePrograms, *, fresh: bool) -> NodeImages:
        for path, content in node.configuration().items():
            files.write(path, content)
        files.write(node.resolv_conf, usable_resolv_conf(_machine_resolv_conf()), mode=0o644)
        self._images_root.mkdir(parents=True, exist_ok=True)
        images = NodeImages(node.plane.programs["ctr"], node.runtime.socket)

        def start() -> None:
            self._processes.ensure(node.runtime.program())
            self._processes.wait(CONTAINERD, images.answers, what="it answered")

        start()
        if fresh and images.purge_containers():
            # It has read the records of a former cluster's containers: let it forget them.
            self._processes.stop(CONTAINERD)
            start()
        return images

    def _load_system_images(self, programs: dict[str, Path], images: NodeImages) -> None:
        with step("loading the cluster's own images") as update:
            for name in ("pause", *NAMES):
                update(name)
                load_program(programs[name], images)

    def _apply_addons(
        self, api: Api, settings: Settings, programs: dict[str, Path], node: NodePrograms
    ) -> None:
        addons = Addons(
            programs,
            settings.http_port,
            settings.https_port,
            name_servers="nameserver" in node.resolv_conf.read_text(),
        )
        with step("starting DNS, ingress controller and metrics"):
            addons.apply(api)
            addons.wait(api)

    def _end_containers(self) -> None:
        cgroups.kill()
        for identity in shims(self._sockets / "containerd.sock"):
            identity.signal(signal.SIGKILL)
        # What is left in containerd's records is purged at the next start too.
        with contextlib.suppress(DevclusterError):
            self.images().purge_containers()


def node_ready(node: Node, api: Api) -> bool:
    """Whether a node is Ready, by its kubelet and by the API server."""
    path = "jsonpath={.status.conditions[?(@.type=='Ready')].status}"
    try:
        # What the API server tells of the node may be older than the end of its kubelet.
        urllib.request.urlopen(node.health, timeout=5).close()  # noqa: S310 (http)
        return api.kubectl("get", "node", node.name, "-o", path, timeout=10) == "True"
    except (OSError, KubectlError):
        return False


def _taken(port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _machine_resolv_conf() -> str:
    """The machine's name servers; those behind systemd-resolved where that stands before them."""
    for path in (Path("/run/systemd/resolve/resolv.conf"), Path("/etc/resolv.conf")):
        if path.exists():
            return path.read_text()
    return ""


def shims(socket_path: Path) -> list[Identity]:
    """The processes between containerd and its containers, known by its socket's path."""
    found = []
    for directory in Path("/proc").iterdir():
        if not directory.name.isdigit():
            continue
        with contextlib.suppress(OSError):
            argv = (directory / "cmdline").read_bytes().decode(errors="replace").split("\0")
            if Path(argv[0]).name == "containerd-shim-runc-v2" and str(socket_path) in argv:
                identity = Identity.of(int(directory.name))
                found += [identity] if identity else []
    return found
