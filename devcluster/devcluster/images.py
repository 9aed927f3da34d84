"""Brings images onto the node without a registry."""

from __future__ import annotations

import hashlib
import io
import json
import platform
import subprocess
import tarfile
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from devcluster import locks
from devcluster.errors import DevclusterError, UsageError

if TYPE_CHECKING:
    from pathlib import Path

#: containerd's namespace for what the kubelet runs.
NAMESPACE = "k8s.io"
#: The label by which an image on the node is known to be the one at hand.
SOURCE_LABEL = "inferencemodel.dev/source-id"

_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
#: The lease of what ``share-images`` has lent.
LOANS = "lent-to-nodes"
#: Importing and unpacking an image of some gigabytes on a slow disk.
_IMPORT_SECONDS = 900


def full_name(name: str) -> str:
    """An image's name as containerd and the kubelet write it out.

    The rule is Docker's: a first part without dot, colon or the name "localhost" is no host.
    """
    first, slash, _ = name.partition("/")
    if slash and ("." in first or ":" in first or first == "localhost"):
        full = name
    elif slash:
        full = f"docker.io/{name}"
    else:
        full = f"docker.io/library/{name}"
    tagged = ":" in full.rsplit("/", 1)[1] or "@" in full
    return full if tagged else f"{full}:latest"


def names_in(archive: Path) -> list[str]:
    """The full names of the images in an archive, as ``docker save`` or OCI tools write it.

    Raises:
        UsageError: it is no such archive, or the images in it have no names.
    """
    try:
        with tarfile.open(archive) as tar:
            names = _docker_names(tar) or _oci_names(tar)
    except (tarfile.TarError, ValueError, KeyError):
        raise UsageError(
            f"{archive} is no archive of images: make one with `docker save` or "
            "`buildah push IMAGE docker-archive:FILE:NAME`"
        ) from None
    if not names:
        raise UsageError(f"the images in {archive} have no names: save them by name, not by id")
    return sorted(full_name(name) for name in names)


def _docker_names(tar: tarfile.TarFile) -> list[str]:
    if "manifest.json" not in tar.getnames():
        return []
    return [name for image in _read(tar, "manifest.json") for name in image["RepoTags"] or ()]


def _oci_names(tar: tarfile.TarFile) -> list[str]:
    annotated = [image.get("annotations", {}) for image in _read(tar, "index.json")["manifests"]]
    names = [each.get("org.opencontainers.image.ref.name", "") for each in annotated]
    # A bare tag, which the specification allows too, names no image.
    return [name for name in names if "/" in name]


def _read(tar: tarfile.TarFile, name: str) -> Any:
    content = tar.extractfile(name)
    return json.loads(content.read()) if content else None


def write_program_image(program: Path, name: str, archive: Path) -> None:
    """Write an archive (``docker save``'s format) of an image that is one static program."""
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as tar, program.open("rb") as content:
        _add(tar, program.name, content.read(), mode=0o755)
    layer_bytes = layer.getvalue()
    configuration = json.dumps(
        {
            "architecture": _ARCHITECTURES.get(platform.machine(), platform.machine()),
            "os": "linux",
            "config": {"Entrypoint": [f"/{program.name}"], "User": "65532:65532"},
            "rootfs": {
                "type": "layers",
                "diff_ids": [f"sha256:{hashlib.sha256(layer_bytes).hexdigest()}"],
            },
        }
    ).encode()
    entry = {"Config": "config.json", "RepoTags": [full_name(name)], "Layers": ["layer.tar"]}
    with tarfile.open(archive, "w") as tar:
        _add(tar, "layer.tar", layer_bytes)
        _add(tar, "config.json", configuration)
        _add(tar, "manifest.json", json.dumps([entry]).encode())


def _add(tar: tarfile.TarFile, name: str, content: bytes, mode: int = 0o644) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = len(content)
    entry.mode = mode
    tar.addfile(entry, io.BytesIO(content))


@dataclass(frozen=True)
class NodeImages:
    """The images on the node."""

    ctr: Path
    socket: Path

    def has(self, name: str, source: str) -> bool:
        """Whether the image of that name was loaded from that very source."""
        selector = f'name=={full_name(name)},labels."{SOURCE_LABEL}"=={source}'
        return bool(self._run("images", "list", "--quiet", selector).strip())

    def names(self) -> list[str]:
        """The images on the node."""
        return sorted(name for name in self._targets() if not name.startswith("sha256:"))

    def load(self, archive: Path) -> list[str]:
        """Import an archive of images and return the names in it.

        Raises:
            UsageError: it is no archive of images that have names.
            DevclusterError: it can't be imported, for example because the disk is full.
        """
        names = names_in(archive)
        self._run("images", "import", str(archive))
        self._forget_unnamed()
        return names

    def _forget_unnamed(self) -> None:
        """Remove images that lost their name to a newer one.

        The kubelet's interface keeps a second entry for each image, under its id, and with it the
        gigabytes on the disk.
        """
        targets = self._targets()
        named = {targets[name] for name in self.names()}
        forgotten = [name for name, target in targets.items() if target not in named]
        if forgotten:
            self._run("images", "delete", *forgotten)

    def load_from(self, archive: Path, name: str, source: str) -> None:
        """Import an archive of one image, and remember where it came from."""
        self.load(archive)
        self._run("images", "label", full_name(name), f"{SOURCE_LABEL}={source}")

    def purge_containers(self) -> bool:
        """Remove the records of containers that no longer run; False when there were none."""
        found = False
        for kind, remove in (
            ("containers", ("containers", "delete")),
            ("sandboxes", ("sandboxes", "remove", "--force")),
        ):
            lines = self._run(kind, "list").splitlines()[1:]
            ids = [line.split()[0] for line in lines if line.strip()]
            if ids:
                found = True
                self._run(*remove, *ids)
        return found

    def forget_loans(self) -> None:
        """Keep nothing any more for nodes that there were."""
        if LOANS in self._run("leases", "list", "--quiet").split():
            self._run("leases", "delete", LOANS)

    def answers(self) -> bool:
        """Whether containerd is up."""
        try:
            self._run("images", "list", "--quiet")
        except DevclusterError:
            return False
        return True

    def _targets(self) -> dict[str, str]:
        rows = [line.split() for line in self._run("images", "list").splitlines()[1:]]
        return {row[0]: row[2] for row in rows}

    def _run(self, *arguments: str) -> str:
        argv = [str(self.ctr), f"--address={self.socket}", f"--namespace={NAMESPACE}", *arguments]
        done = subprocess.run(
            argv, capture_output=True, text=True, check=False, timeout=_IMPORT_SECONDS
        )
        if done.returncode != 0:
            raise DevclusterError(f"ctr {' '.join(arguments)}: {done.stderr.strip()}")
        return done.stdout


@dataclass(frozen=True)
class SharedImages(NodeImages):
    """The images of several nodes: in one store that runs nothing, from where each has links.

    So they take room once, and a node has them within a second.
    """

    root: Path
    """The store's directory."""
    program: Path
    """``share-images``."""
    nodes: tuple[tuple[Path, Path], ...]
    """The nodes' containerds: sockets, with directories."""

    def load(self, archive: Path) -> list[str]:
        """Import an archive of images, have every node know them, and return the names in it."""
        names = super().load(archive)
        self.share()
        return names

    def share(self) -> None:
        """Have every node know every image of the store.

        Raises:
            DevclusterError: a node does not take one.
        """
        if not self.nodes:
            return
        with locks.exclusive("share"):
            nodes = [f"-node={socket}={root}" for socket, root in self.nodes]
            done = subprocess.run(
                [str(self.program), f"-store={self.socket}={self.root}", *nodes],
                capture_output=True,
                text=True,
                check=False,
                timeout=_IMPORT_SECONDS,
            )
        if done.returncode != 0:
            raise DevclusterError(f"sharing images: {done.stderr.strip()}")
