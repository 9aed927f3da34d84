"""The programs that the operating system gives, and how they get onto the machine."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from devcluster import paths
from devcluster.errors import PreconditionError, with_log
from devcluster.progress import step

if TYPE_CHECKING:
    from collections.abc import Sequence

#: Where distributions put the CNI plugins.
CNI_DIRECTORIES = (Path("/usr/lib/cni"), Path("/opt/cni/bin"))
CNI_PACKAGE = "containernetworking-plugins"
#: Where system programs are; root's PATH leaves some of these out on some distributions.
SYSTEM_DIRECTORIES = (
    "/usr/local/sbin",
    "/usr/local/bin",
    "/usr/sbin",
    "/usr/bin",
    "/sbin",
    "/bin",
)


@dataclass(frozen=True)
class Need:
    """A program and the Debian package that has it."""

    program: str
    package: str

    def present(self) -> bool:
        """Whether the machine has it."""
        if self.package == CNI_PACKAGE:
            return plugins() is not None
        places = ":".join([os.environ.get("PATH", ""), *SYSTEM_DIRECTORIES])
        return shutil.which(self.program, path=places) is not None


def plugins() -> Path | None:
    """The directory of the CNI plugins."""
    return next((each for each in CNI_DIRECTORIES if (each / "portmap").exists()), None)


NODE = (
    Need("runc", "runc"),
    Need("portmap", CNI_PACKAGE),
    Need("iptables", "iptables"),
    Need("conntrack", "conntrack"),
    Need("ip", "iproute2"),
    Need("openssl", "openssl"),
)
#: What several nodes need.
NODES = (
    *NODE,
    Need("nsenter", "util-linux"),
    Need("mount", "mount"),
    Need("mkfs.ext4", "e2fsprogs"),
)
BROWSER = (Need("chromium", "chromium"),)
"""With the fonts that its library for fonts depends on."""
POLICIES = (Need("ipset", "ipset"),)
IMAGES = (Need("buildah", "buildah"), Need("mmdebstrap", "mmdebstrap"))


def missing(needs: Sequence[Need]) -> list[Need]:
    """Those that are not on the machine."""
    return [need for need in needs if not need.present()]


def require_linux_root() -> None:
    """See that this is Linux, and that we may change it.

    Raises:
        PreconditionError: it is not, or we may not.
    """
    alternative = "or export KUBECONFIG of any cluster, and it is used instead"
    if sys.platform != "linux":
        raise PreconditionError(
            f"the embedded cluster needs Linux: use a Linux machine, {alternative}"
        )
    if os.geteuid() != 0:
        raise PreconditionError(
            f"the embedded cluster needs root: run this with sudo, {alternative}"
        )


def ensure(needs: Sequence[Need]) -> None:
    """Install what is missing, where apt-get and root make that possible.

    Raises:
        PreconditionError: they don't, or the installation fails.
    """
    lacking = missing(needs)
    if not lacking:
        return
    names = sorted({need.package for need in lacking})
    command = f"apt-get install {' '.join(names)}"
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        programs = ", ".join(need.program for need in lacking)
        raise PreconditionError(f"missing programs: {programs}. Install them (Debian: {command})")
    log = paths.cache() / "logs" / "apt-get.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    with step(f"installing Debian packages: {' '.join(names)}"), log.open("w") as written:
        if not _install(names, written.fileno()):
            # The lists are missing or old, as on a fresh machine.
            _apt_get(["update"], written.fileno())
            if not _install(names, written.fileno()):
                raise PreconditionError(with_log(f"{command} fails", log))
    if still := missing(needs):
        raise PreconditionError(f"{command} did not bring {', '.join(n.program for n in still)}")


def _install(names: Sequence[str], log: int) -> bool:
    return _apt_get(["install", "--yes", "--no-install-recommends", *names], log)


def _apt_get(arguments: Sequence[str], log: int) -> bool:
    done = subprocess.run(
        ["apt-get", *arguments],
        env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"},
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        check=False,
    )
    return done.returncode == 0
