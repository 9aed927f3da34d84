"""Has NetworkPolicies enforced for a while, by kube-router's firewall.

It writes rules for every pod anew whenever a pod or a policy changes, so it runs only where they
are wanted.
"""

from __future__ import annotations

import subprocess
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from devcluster import build, network, packages
from devcluster.errors import StartError
from devcluster.processes import Processes, Program
from devcluster.topology import NODE_NAME

if TYPE_CHECKING:
    from collections.abc import Iterator

PROGRAM = "kube-router"
_CHAINS = ("KUBE-ROUTER-", "KUBE-POD-FW-", "KUBE-NWPLCY-")
_SETS = ("KUBE-SRC-", "KUBE-DST-", "kube-router-")


@contextmanager
def enforced(kubeconfig: Path) -> Iterator[None]:
    """Enforce the NetworkPolicies of the embedded cluster inside a ``with`` block.

    They are a second or two late, and are gone without a trace after the block.

    Args:
        kubeconfig: of an administrator.

    Raises:
        DevclusterError: kube-router does not build, or ends at once.
    """
    packages.ensure(packages.POLICIES)
    program = Program(
        PROGRAM,
        (
            str(build.ensure([PROGRAM])[PROGRAM]),
            f"--kubeconfig={kubeconfig}",
            f"--hostname-override={NODE_NAME}",
            "--run-firewall=true",
            "--run-router=false",
            "--run-service-proxy=false",
            "--enable-cni=false",
            "--health-port=0",
        ),
        {},
    )
    with tempfile.TemporaryDirectory() as directory:
        processes = Processes(Path(directory) / "records", Path(directory) / "logs", tied=True)
        try:
            processes.ensure(program)
            yield
        finally:
            processes.stop(PROGRAM)
            network.remove_chains(_CHAINS)
            _remove_sets()


def _remove_sets() -> None:
    for name in _ipset("list", "-name").split():
        if name.startswith(_SETS):
            _ipset("destroy", name)


def _ipset(*arguments: str) -> str:
    done = subprocess.run(
        ["ipset", *arguments], capture_output=True, text=True, check=False, timeout=60
    )
    if done.returncode != 0:
        raise StartError(f"ipset {' '.join(arguments)}: {done.stderr.strip()}")
    return done.stdout
