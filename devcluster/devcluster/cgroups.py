"""The control group that holds every pod of the cluster, in version 1 and 2 of the hierarchy."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING

from devcluster import files, paths
from devcluster.errors import StartError
from devcluster.processes import Identity

if TYPE_CHECKING:
    from collections.abc import Iterator

#: The kubelet's ``cgroupRoot``: a name of our own, so that what runs in it is ours.
ROOT = f"/{paths.NAME}"
#: So many processes beside the pods are taken for one of a node's groups.
_BESIDE = 4
#: In version 2.
_HEAVIEST = 10_000
#: Seconds that killed containers get to vanish.
KILL_SECONDS = 30.0


def hierarchies(mounts: str) -> list[Path]:
    """The mount points of the control group file systems.

    There is one of version 2, or one of version 1 for each controller, or both, where the one of
    version 2 has no controllers but the processes are in it all the same.
    """
    found = [line.split()[1:3] for line in mounts.splitlines()]
    return [Path(point) for point, kind in found if kind in {"cgroup", "cgroup2"}]


def _groups(name: str = ROOT) -> Iterator[Path]:
    for hierarchy in hierarchies(Path("/proc/mounts").read_text()):
        yield hierarchy / name.lstrip("/")


def _inside(group: Path) -> list[Path]:
    """A group and those in it, the deepest first; they may come and go while one looks."""
    return [Path(directory) for directory, _, _ in os.walk(group, topdown=False)]


def create(memory: Path) -> None:
    """Make the group, which the kubelet wants to exist, with every controller in it.

    ``memory`` is a file that remembers which controllers the machine's top group had not handed
    down before, so that ``remove`` takes just these back.
    """
    handed: dict[str, list[str]] = json.loads(memory.read_text()) if memory.exists() else {}
    for group in _groups():
        group.mkdir(exist_ok=True)
        if (group / "cgroup.controllers").exists():
            handed[str(group.parent)] = [
                *handed.get(str(group.parent), []),
                *hand_down(group.parent),
            ]
            hand_down(group)
        _inherit(group)
        weigh(group, os.cpu_count() or 1)
    files.write(memory, json.dumps(handed))


def add(name: str) -> None:
    """Make a group below the one of the cluster, for one node of several."""
    for group in _groups(name):
        group.mkdir(exist_ok=True)
        if (group / "cgroup.controllers").exists():
            hand_down(group)
        _inherit(group)


def _inherit(group: Path) -> None:
    for setting in ("cpuset.cpus", "cpuset.mems"):
        # In version 1 a new group has no processors and no memory until it is given some.
        inherited = group.parent / setting
        if inherited.exists() and not (group / setting).read_text().strip():
            (group / setting).write_text(inherited.read_text())


def weigh(group: Path, cores: int) -> None:
    """Have all pods together get the part of contended processors that they get on a node.

    There the group of all pods weighs as many processes as there are processors, and nearly all
    else is in one group that weighs as one. Here that group is within this one, so that the pods
    would weigh as one process; and what is beside them are some processes, each by itself.
    """
    processes = _BESIDE * cores
    weight = min(100 * processes, _HEAVIEST)
    for setting, value in (("cpu.shares", 1024 * processes), ("cpu.weight", weight)):
        # Without it, pods are merely slower.
        with contextlib.suppress(OSError):
            if (group / setting).exists():
                (group / setting).write_text(f"{value}\n")


def hand_down(group: Path) -> list[str]:
    """Give the groups below one of version 2 all its controllers; returns those that are new."""
    has = (group / "cgroup.controllers").read_text().split()
    given = (group / "cgroup.subtree_control").read_text().split()
    new = []
    for controller in has:
        # One that the kernel refuses is missed by the kubelet, which says so by name, or by nobody.
        with contextlib.suppress(OSError):
            if controller not in given:
                (group / "cgroup.subtree_control").write_text(f"+{controller}")
                new.append(controller)
    return new


def kill(name: str = ROOT) -> None:
    """Kill every process in the group, and in those below it.

    Raises:
        StartError: some of them do not go.
    """
    deadline = time.monotonic() + KILL_SECONDS
    while pids := _pids(name):
        for pid in pids:
            identity = Identity.of(pid)
            # It may have ended since, and its id may be another one's by now: look again.
            if identity and pid in _pids(name):
                identity.signal(signal.SIGKILL)
        if time.monotonic() > deadline:
            raise StartError(f"containers that can't be killed: processes {sorted(pids)}")
        time.sleep(0.05)


def _pids(name: str) -> set[int]:
    pids: set[int] = set()
    for group in _groups(name):
        for inner in _inside(group):
            with contextlib.suppress(OSError):
                pids |= {int(pid) for pid in (inner / "cgroup.procs").read_text().split()}
    return {pid for pid in pids if Identity.of(pid)}


def remove(memory: Path) -> None:
    """Remove the group and all below it, and take back what the top group handed down.

    ``memory`` is what ``create`` wrote.

    Raises:
        StartError: a group stays busy.
    """
    remove_groups(ROOT)
    for top, controllers in (json.loads(memory.read_text()) if memory.exists() else {}).items():
        for controller in controllers:
            # Somebody else may use it by now.
            with contextlib.suppress(OSError):
                (Path(top) / "cgroup.subtree_control").write_text(f"-{controller}")


def remove_groups(name: str) -> None:
    """Remove a group and all below it; what is not empty yet is tried until a deadline.

    Raises:
        StartError: a group stays busy.
    """
    deadline = time.monotonic() + KILL_SECONDS
    for group in _groups(name):
        while group.is_dir():
            for inner in _inside(group):
                with contextlib.suppress(OSError):
                    inner.rmdir()
            if group.is_dir() and time.monotonic() > deadline:
                raise StartError(f"{group} stays busy: see its cgroup.procs")
