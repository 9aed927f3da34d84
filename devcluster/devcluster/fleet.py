"""Several nodes: brought up together; stopped, cut off, filled and healed one by one."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Literal

from devcluster import disks, namespaces
from devcluster.errors import UsageError
from devcluster.machine import PROGRAMS, Machine
from devcluster.runtime import CONTAINERD

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from devcluster.network import Network
    from devcluster.node import NodePrograms
    from devcluster.topology import Node

#: From whom a node can be cut off.
From = Literal["all", "control-plane"]


class Fleet:
    """The nodes of a cluster that has several."""

    def __init__(self, nodes: Sequence[Node], network: Network) -> None:
        self._nodes = nodes
        self._network = network
        self.machines = [Machine(node) for node in nodes]

    def find(self, name: str) -> Machine:
        """A node by its name.

        Raises:
            UsageError: there is none of that name.
        """
        for machine in self.machines:
            if machine.node.name == name:
                return machine
        names = ", ".join(node.name for node in self._nodes)
        raise UsageError(f"no node is called {name}; there are {names}")

    def stores(self) -> tuple[tuple[Path, Path], ...]:
        """The containerds that run: sockets, with directories."""
        return tuple(
            (machine.node.sockets / "containerd.sock", machine.node.images)
            for machine in self.machines
            if machine.processes.identity(CONTAINERD)
        )

    def start(self, programs: Sequence[NodePrograms], share: Callable[[], None]) -> None:
        """Have nodes run and be connected; ``share`` gives those that run their images.

        Raises:
            StartError: something does not work.
        """
        each = [(self.find(one.node.name), one) for one in programs]
        with ThreadPoolExecutor(len(each)) as workers:
            started = [workers.submit(m.start_runtime, one, self._nodes) for m, one in each]
            for future in started:
                future.result()
        for machine, _ in each:
            self._network.separate(machine.node, apart=False)
        share()
        for machine, one in each:
            machine.start_programs(one)

    def stop(self, name: str) -> None:
        """Have a node die at once; it stays a member of the cluster, and ``start`` boots it.

        Raises:
            UsageError: there is no such node.
        """
        self.find(name).stop()

    def stop_all(self) -> None:
        """Have every node die."""
        for machine in self.machines:
            machine.stop()

    def cut(self, name: str, others: From) -> None:
        """Cut a node's network off from all others, or from the control plane only.

        Raises:
            UsageError: there is no such node, or it does not run.
        """
        node = self._running(name).node
        if others == "all":
            namespaces.unplug(node)
        else:
            self._network.separate(node, apart=True)

    def heal(self, name: str) -> None:
        """Undo every cut and the filling of a node's disk.

        Raises:
            UsageError: there is no such node, or it does not run.
        """
        machine = self._running(name)
        namespaces.ensure(machine.node, self._nodes)
        self._network.separate(machine.node, apart=False)
        disks.empty(machine.disk)

    def fill(self, name: str) -> None:
        """Take all room that a node's disk has left.

        Raises:
            UsageError: there is no such node, or it does not run.
        """
        disks.fill(self._running(name).disk)

    def _running(self, name: str) -> Machine:
        machine = self.find(name)
        if not any(machine.processes.identity(program) for program in PROGRAMS):
            raise UsageError(f"{name} is stopped: start it with `devcluster node start {name}`")
        return machine
