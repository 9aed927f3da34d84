"""The whole cluster: brings it up, repairs it, takes it down."""

from __future__ import annotations

import contextlib
import json
import shutil
import signal
import socket
from dataclasses import asdict
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
from devcluster.client import Api, answers
from devcluster.controllers import CONTROLLER_MANAGER, SCHEDULER, USERS, Controllers
from devcluster.controlplane import ADMIN, API_SERVER, STOP_SECONDS, ControlPlane
from devcluster.errors import DevclusterError, PreconditionError, UsageError
from devcluster.fleet import Fleet
from devcluster.images import NodeImages, SharedImages
from devcluster.machine import PROGRAMS, Machine, ready, shims
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
from devcluster.runtime import CONTAINERD, Runtime
from devcluster.settings import Settings, Status

if TYPE_CHECKING:
    from collections.abc import Sequence

    from devcluster.fleet import From
    from devcluster.topology import Node

API_PORT = 6443
READY_SECONDS = 120.0
#: In the order in which they end; of several nodes each has a kubelet, so the machine has none.
_PROGRAMS = (
    (KUBELET, PROXY, CONTROLLER_MANAGER, SCHEDULER),
    (API_SERVER,),
    ("etcd", CONTAINERD),
)
_NAMES = tuple(name for group in _PROGRAMS for name in group)

#: The ports of 127.0.0.1 that the programs take, with what is most likely there otherwise.
_PORTS = (API_PORT, 10248, 10249, 10250, 10256, 10257, 10259)


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

    def logs(self) -> dict[str, Path]:
        """The logs of programs, by name; those of one of several nodes begin with the node's."""
        nodes = (self._state / "nodes").glob("*/logs/*.log")
        return {path.stem: path for path in sorted(self._processes.logs.glob("*.log"))} | {
            f"{path.parent.parent.name}/{path.stem}": path for path in sorted(nodes)
        }

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
            ingress=f"{self._ingress(self.settings())}:{self.settings().http_port}",
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
            self._check_nodes(chosen)
            packages.ensure(packages.NODES if chosen.several else packages.NODE)
            self._check_machine(chosen)
            tools = (*build.NODE_TOOLS, *(build.SEVERAL_TOOLS if chosen.several else ()))
            programs = build.ensure(tools)
            fresh = not (self._state / "etcd").exists()
            self._state.mkdir(mode=0o700, parents=True, exist_ok=True)
            files.write(self._state / "settings.json", json.dumps(asdict(chosen)))
            plane = self._plane(programs)
            nodes = self._nodes(chosen)
            with step("starting etcd and the API server"):
                self._start_api_server(plane, nodes)
            with step("preparing the machine's network and control groups"):
                bridged = topology.NODE_NETWORK if chosen.several else network.POD_NETWORK
                self._network.setup(API_PORT, bridged)
                cgroups.create(self._state / "controllers.json")
            described = [self._described(plane, node) for node in nodes]
            with step("starting containerd"):
                runtime = self._store(plane) if chosen.several else described[0].runtime
                if not chosen.several:
                    _write(described[0].configuration())
                images = self._start_containerd(runtime, fresh=fresh)
            self._load_system_images(programs, images)
            with step(f"starting the controllers and {_counted(len(nodes))}"):
                self._start_controllers(Controllers(plane, several=chosen.several))
                if chosen.several:
                    self._fleet().start(described, self._share)
                else:
                    for program in described[0].programs():
                        self._processes.ensure(program)
                self._wait_for_nodes(nodes)
            self._apply_addons(chosen, programs)
            return self.api()

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
                if self.settings().several:
                    self._fleet().stop_all()
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
        found = self._found(settings)
        authority = plane.certificates.crt("ca")
        answering = authority.exists() and answers(API_PORT, authority, "/readyz")
        nodes = {node.name: answering and ready(node, self.api()) for node in self._nodes(settings)}
        ingress = self._ingress(settings)
        return Status(
            running=answering and all(found.values()),
            programs={name: identity.pid if identity else None for name, identity in found.items()},
            node_ready=all(nodes.values()),
            nodes=nodes,
            kubeconfig=str(self.kubeconfig),
            url=plane.url,
            ingress=f"http://{ingress}:{settings.http_port}",
            ingress_tls=f"https://{ingress}:{settings.https_port}",
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
        """The images on the node, or of all nodes.

        Raises:
            UsageError: the cluster does not run.
        """
        if self._processes.identity(CONTAINERD) is None:
            raise UsageError("the cluster does not run: bring it up with `devcluster up`")
        if self.settings().several:
            return self._shared()
        return NodeImages(build.ensure(["ctr"])["ctr"], self._sockets / "containerd.sock")

    def stop_node(self, name: str) -> None:
        """Have one of several nodes die: programs, containers and network, at once.

        Raises:
            UsageError: there is no such node.
        """
        with locks.exclusive("cluster"):
            self._fleet().stop(name)

    def start_node(self, name: str) -> None:
        """Boot one of several nodes, or repair it, and wait until it is Ready.

        Raises:
            UsageError: there is no such node.
            StartError: a program of it fails.
        """
        with locks.exclusive("cluster"):
            node = self._fleet().find(name).node
            plane = self._plane(build.ensure(build.NODE_TOOLS))
            self._fleet().start([self._described(plane, node)], self._share)
            self._wait_for_nodes([node])

    def cut_node(self, name: str, others: From) -> None:
        """Cut one of several nodes off from all others, or from the control plane only.

        Raises:
            UsageError: there is no such node, or it does not run.
        """
        with locks.exclusive("cluster"):
            self._fleet().cut(name, others)

    def heal_node(self, name: str) -> None:
        """Undo every cut and the filling of the disk of one of several nodes.

        Raises:
            UsageError: there is no such node, or it does not run.
        """
        with locks.exclusive("cluster"):
            self._fleet().heal(name)
            self._share()

    def fill_node(self, name: str) -> None:
        """Take all room that the disk of one of several nodes has left.

        Raises:
            UsageError: there is no such node, or it does not run.
        """
        with locks.exclusive("cluster"):
            self._fleet().fill(name)

    def kill_program(self, name: str) -> None:
        """Have one program die at once, by its name in ``status``: ``etcd``, ``node-1/kubelet``.

        Pods go on without it. ``start_control_plane``, ``start_node`` or ``up`` start it again.

        Raises:
            UsageError: there is no such program, or it does not run.
        """
        node, _, program = name.rpartition("/")
        with locks.exclusive("cluster"):
            found = self._found(self.settings())
            if name not in found:
                raise UsageError(f"no program is called {name}; there are {', '.join(found)}")
            if found[name] is None:
                raise UsageError(f"{name} does not run")
            of = self._fleet().find(node).processes if node else self._processes
            of.kill_all([program])

    def start_control_plane(self) -> None:
        """Start what does not run of etcd, API server, controllers and scheduler, or runs otherwise
        than it shall, and wait until the API server is ready.

        Raises:
            UsageError: there is no cluster.
            StartError: a program fails.
        """
        if not self.exists():
            raise UsageError("there is no cluster: bring it up with `devcluster up`")
        with locks.exclusive("cluster"):
            settings = self.settings()
            plane = self._plane(build.ensure(build.NODE_TOOLS))
            self._start_api_server(plane, self._nodes(settings))
            self._start_controllers(Controllers(plane, several=settings.several))

    @property
    def _images_root(self) -> Path:
        return paths.cache() / "containerd"

    def _nodes(self, settings: Settings) -> tuple[Node, ...]:
        if settings.several:
            return topology.several(settings.nodes, self._state, self._sockets)
        return (topology.only(self._state, self._sockets, self._images_root),)

    def _fleet(self) -> Fleet:
        settings = self.settings()
        if not settings.several:
            raise UsageError(
                "the cluster has not several nodes: take it down, then `devcluster up --nodes=3`"
            )
        return Fleet(self._nodes(settings), self._network)

    def _shared(self) -> SharedImages:
        programs = build.ensure(["ctr", *build.SEVERAL_TOOLS])
        return SharedImages(
            programs["ctr"],
            self._sockets / "containerd.sock",
            root=self._images_root,
            program=programs["share-images"],
            nodes=self._fleet().stores(),
        )

    def _share(self) -> None:
        """Have the nodes that run by now know every image."""
        self._shared().share()

    def _ingress(self, settings: Settings) -> str:
        return network.NODE_ADDRESS if settings.several else "127.0.0.1"

    def _found(self, settings: Settings) -> dict[str, Identity | None]:
        """The process of every program that should run."""
        if not settings.several:
            return {name: self._processes.identity(name) for name in _NAMES}
        return {name: self._processes.identity(name) for name in _NAMES if name != KUBELET} | {
            f"{machine.node.name}/{name}": machine.processes.identity(name)
            for machine in self._fleet().machines
            for name in PROGRAMS
        }

    def _plane(self, programs: dict[str, Path]) -> ControlPlane:
        return ControlPlane(
            programs,
            state=self._state,
            sockets=self._sockets,
            port=API_PORT,
            address=network.NODE_ADDRESS,
            node=True,
        )

    def _described(self, plane: ControlPlane, node: Node) -> NodePrograms:
        plugins = packages.plugins()
        if plugins is None:
            raise PreconditionError("the CNI plugins are missing")
        return NodePrograms(
            plane,
            node,
            plugins=plugins,
            sandbox_image=f"docker.io/{program_image(plane.programs['pause'])}",
        )

    def _store(self, plane: ControlPlane) -> Runtime:
        """The containerd from which several nodes have their images."""
        configuration = self._state / "containerd.toml"
        return Runtime(plane.programs, configuration, self._images_root, self._sockets, pods=None)

    def _check_nodes(self, settings: Settings) -> None:
        """See that a cluster that is there already has as many nodes as are wanted."""
        self._nodes(settings)
        had = self.settings().nodes
        if self._processes.names() and settings.nodes != had:
            raise UsageError(
                f"the cluster has {_counted(had)}, and that stays so: take it down first, with "
                "`devcluster down`"
            )

    @property
    def _resolv_conf(self) -> Path:
        return self._state / "resolv.conf"

    def _check_machine(self, settings: Settings) -> None:
        """See that nothing else is where the cluster goes; one that is up already may stay."""
        if self._processes.names():
            return
        network.check()
        # Of several nodes none has the machine's own ports.
        ingress = () if settings.several else (settings.http_port, settings.https_port)
        taken = [port for port in (*_PORTS, *ingress) if _taken(port)]
        if taken:
            ports = ", ".join(str(port) for port in taken)
            raise PreconditionError(
                f"ports of 127.0.0.1 that are in use: {ports}. End what holds them (`ss -ltnp`), "
                "name others for the ingress (--http-port, --https-port), or, if this is another "
                "Kubernetes, export its KUBECONFIG and use that"
            )

    def _start_api_server(self, plane: ControlPlane, nodes: Sequence[Node]) -> None:
        plane.prepare()
        kubelets = [kubelet_user(node) for node in nodes]
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

    def _start_controllers(self, controllers: Controllers) -> None:
        _write(controllers.configuration())
        for program in controllers.programs():
            self._processes.ensure(program)

    def _wait_for_nodes(self, nodes: Sequence[Node]) -> None:
        api = self.api()
        for node in nodes:
            machine = Machine(node) if node.namespace else self
            machine.processes.wait(
                KUBELET,
                lambda node=node: ready(node, api),  # type: ignore[misc]
                what=f"{node.name} was Ready",
                within=READY_SECONDS,
            )

    def _start_containerd(self, runtime: Runtime, *, fresh: bool) -> NodeImages:
        files.write(runtime.configuration, runtime.toml())
        files.write(self._resolv_conf, usable_resolv_conf(_machine_resolv_conf()), mode=0o644)
        self._images_root.mkdir(parents=True, exist_ok=True)
        images = NodeImages(runtime.programs["ctr"], runtime.socket)

        def start() -> None:
            self._processes.ensure(runtime.program())
            self._processes.wait(CONTAINERD, images.answers, what="it answered")

        start()
        if fresh:
            images.forget_loans()
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

    def _apply_addons(self, settings: Settings, programs: dict[str, Path]) -> None:
        api = self.api()
        addons = Addons(
            programs,
            settings.http_port,
            settings.https_port,
            name_servers="nameserver" in self._resolv_conf.read_text(),
            several=settings.several,
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


def _write(configuration: dict[Path, str]) -> None:
    for path, content in configuration.items():
        files.write(path, content)


def _counted(nodes: int) -> str:
    return "the node" if nodes == 1 else f"{nodes} nodes"


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
